//! Ringlane.
