//! What a small file held when it was written whole: its CRC32C in an extended attribute of the file
//! (docs/formats/content_mark.md). Formats that are Apache Kafka's, and texts, have no room for a checksum of their own.

use std::fs::File;
use std::path::Path;

use crc_fast::CrcAlgorithm;
use xattr::FileExt;

const ATTRIBUTE: &str = "user.ringlane.crc32c";

/// Marks a file that was just written. Where the file system has no such attributes, or no room for one, there is no mark.
pub(super) fn note(file: &File, bytes: &[u8]) {
    if file.set_xattr(ATTRIBUTE, text(bytes).as_bytes()).is_err() {
        // That of the file's former content.
        let _ = file.remove_xattr(ATTRIBUTE);
    }
}

/// Does a file that holds these bytes hold what was written? True as well where there is no mark.
pub fn fits(path: &Path, bytes: &[u8]) -> bool {
    !matches!(xattr::get(path, ATTRIBUTE), Ok(Some(noted)) if noted != text(bytes).as_bytes())
}

fn text(bytes: &[u8]) -> String {
    format!("{:08x}", crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}
