//! The journals of ext4 and its forerunners that are in use. Pure.

/// Names each of them: by its device where it is all of one, and else by the device and the number of the inode that it is, such as
/// `sda1-8` (`jbd2_journal_init_dev` and `jbd2_journal_init_inode` in fs/jbd2/journal.c).
pub(super) const IN_USE: &str = "/proc/fs/jbd2";

/// What precedes the name of the journal in that of the kernel thread which writes it.
const THREAD: &str = "jbd2/";
/// Bytes of the name of a thread, at most, before Linux 5.17: proc_pid_comm(5).
const THREAD_BYTES: usize = 15;

/// Returns whether one of `journals` is an inode of the file system on `device`.
pub(super) fn is_inside(journals: &[String], device: &str) -> bool {
    let inode = |journal: &String| journal.strip_prefix(device)?.strip_prefix('-')?.parse::<u64>().ok();
    journals.iter().any(|journal| inode(journal).is_some())
}

/// Returns which of `journals` the thread called `comm` writes; `None` when that is not told.
pub(super) fn written_by<'j>(journals: &'j [String], comm: &str) -> Option<&'j str> {
    let written = comm.strip_prefix(THREAD)?;
    if let Some(journal) = journals.iter().find(|&journal| journal == written) {
        return Some(journal);
    }
    let mut possible = journals.iter().filter(|journal| comm.len() == THREAD_BYTES && journal.starts_with(written));
    possible.next().filter(|_| possible.next().is_none()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_journal_inside_is_named_by_its_device_and_an_inode() {
        let journals = names(&["sda1-8", "dm-0-8", "dm-3", "cciss!c0d0p1-12"]);
        for device in ["sda1", "dm-0", "cciss!c0d0p1"] {
            assert!(is_inside(&journals, device), "{device}");
        }
        for device in ["sda", "sda11", "dm-3", "dm-1", ""] {
            assert!(!is_inside(&journals, device), "{device}");
        }
    }

    #[test]
    fn a_journal_is_told_by_its_thread_unless_that_is_cut_and_fits_several() {
        let journals = names(&["loop1", "loop12", "nvme10n1p1", "nvme10n1p12", "cciss!c0d0p1"]);
        for (comm, expected) in [
            ("jbd2/loop1", Some("loop1")),
            ("jbd2/loop12", Some("loop12")),
            ("jbd2/loop", None),
            ("jbd2/nvme10n1p1", Some("nvme10n1p1")),
            ("jbd2/nvme10n1p12", Some("nvme10n1p12")),
            ("jbd2/cciss!c0d0", Some("cciss!c0d0p1")),
            ("jbd2/sda1-8", None),
            ("bash", None),
        ] {
            assert_eq!(written_by(&journals, comm), expected, "{comm}");
        }
        assert_eq!(written_by(&names(&["nvme10n1p11", "nvme10n1p12"]), "jbd2/nvme10n1p1"), None);
    }
}
