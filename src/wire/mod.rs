//! Bytes and their meaning. Requests are read where they were received: nothing here copies record data, reserves
//! memory by a length the peer claims, or panics on what a peer sent. Depends on `ids` only; the three hot messages
//! (Produce request, Fetch request and reply) have their own codec, everything else is the crate `kafka-protocol`.

pub mod batch;
mod codec_contexts;
pub mod compression;
pub mod error_code;
pub mod fetch;
pub mod frame;
pub mod messages;
pub mod offsets;
pub mod produce;
pub mod reader;
pub mod record;
mod requests;
pub mod routing;
pub mod shape;
mod snappy_block;
pub mod walk;
pub mod writer;

pub use error_code::ErrorCode;
pub use reader::DecodeError;
pub use routing::TopicRef;
