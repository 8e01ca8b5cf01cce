//! The cluster: what exists (topics, partitions, brokers, configuration) and how a request changes it. Everything is a
//! pure function of the metadata records; nothing waits, reads a clock or touches a file.

pub mod image;
