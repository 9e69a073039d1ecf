//! Every size and count that both ends enforce.

/// Bytes of an entry of the evidence log, at most. C2SP tlog-tiles frames an entry with a 16-bit length.
pub const ENTRY_BYTES: usize = 65_535;
/// Bytes of an encoded `SealedReport`, at most: 60 KiB, so that an entry has room for what the collector adds.
pub const SEALED_REPORT_BYTES: usize = 61_440;
/// Bytes of the encoded `Report` inside it, at most: 64 bytes of signature and tags leave this.
pub const REPORT_BYTES: usize = 61_360;
/// Bytes of encoded subjects that an agent puts into one report, so that the rest of the report always fits.
pub const SUBJECT_BYTES_PER_REPORT: usize = 48 * 1024;
/// Parts that a subject may be split into, at most; bounds a subject to 1.5 MiB.
pub const SUBJECT_PARTS: u32 = 32;
/// Bytes of a whole encoded fact, at most.
pub const FACT_BYTES: usize = SUBJECT_PARTS as usize * SUBJECT_BYTES_PER_REPORT;
/// Bytes of a text of a fact, at most.
pub const TEXT_BYTES: usize = 4096;
/// Bytes of a text that explains something to a person, at most.
pub const DETAIL_BYTES: usize = 512;
/// Bytes of a word of a vocabulary, such as the kind of a volume, at most.
pub const WORD_BYTES: usize = 32;
/// Items of a list in a fact, at most, and of all its lists together.
pub const LIST_ITEMS: usize = 100_000;
/// Bytes of an encoded fact for each item of its lists, at least: a name of two letters needs as many.
pub const BYTES_PER_ITEM: usize = 4;
/// Bytes of the version that an agent states, at most.
pub const VERSION_BYTES: usize = 64;
/// Bytes of a log's origin, at most.
pub const ORIGIN_BYTES: usize = 255;
/// Whole subjects in one report, at most. There are fewer; a newer agent may have more.
pub const REPORT_SUBJECTS: usize = 64;
/// Facts about subjects that a build does not know that it holds of one agent, at most: as many as a newer agent might have, and
/// not as many as a hostile one could make up.
pub const OPAQUE_FACTS: usize = 64;
/// Look-now directives that one coverage answers, at most.
pub const DIRECTIVE_IDS: usize = 64;
/// Bytes of a gRPC message that the collector takes from an agent, at most.
pub const AGENT_MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes of a gRPC message that a client takes from the collector, at most.
pub const CLIENT_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Reports that an agent may have under way when the collector sets no other window.
pub const WINDOW_REPORTS: u32 = 1024;
/// Id of the ALPN protocol that marks a connection for enrolment.
pub const ENROLL_ALPN: &[u8] = b"muster-enroll/1";
/// File changes that a file-integrity fact lists, at most; the rest is counted.
pub const FILE_CHANGES: usize = 1000;
/// Bytes of one encoded `FileChange`, at most.
pub const FILE_CHANGE_BYTES: usize = 64 * 1024;
/// Watch sets of one host, at most.
pub const WATCH_SETS: usize = 100;
/// Bytes of the encoded definitions of all watch sets of one host, at most, so that a profile fits into a message.
pub const WATCH_SETS_BYTES: usize = 48 * 1024;
/// Paths of one watch set, and patterns of one of its lists, at most.
pub const WATCH_SET_ITEMS: usize = 1000;
/// Bytes of a watched path, at most.
pub const WATCHED_PATH_BYTES: usize = 4096;
/// Bytes of a pattern of a watch set, at most.
pub const WATCH_PATTERN_BYTES: usize = 1024;
/// Bytes of a watch set's owner, at most.
pub const WATCH_OWNER_BYTES: usize = 256;
/// Groups of explained changes that a file-integrity fact lists, at most; the rest is counted.
pub const EXPLAINED_CHANGES: usize = 1000;
/// Processes that are named for one file change, at most.
pub const ACTORS: usize = 8;
/// Extended attributes that are recorded of one file, at most; a file with more is unreadable.
pub const EXTENDED_ATTRIBUTES: usize = 64;
/// Unreadable paths that a file-integrity fact lists, at most; the rest is counted.
pub const UNREADABLE_PATHS: usize = 100;
