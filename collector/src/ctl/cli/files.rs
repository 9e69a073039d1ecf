//! `files` on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use muster_proto::{id::Digest, time::Timestamp};

use super::{Listing, example};
use crate::ctl::args::{instant, limit};

/// Changes of watched files.
#[derive(Debug, Subcommand)]
pub enum Files {
    /// List changes that nothing explained when they were reported.
    #[command(mut_arg("filter", |it| it.help(example::CHANGES)))]
    Changes(Changes),
    /// Show everything that is known of a host's files, or of one of them: baselines, changes, and what became of each.
    Timeline {
        /// Id, the beginning of one, or hostname.
        host: String,
        /// The file; by default all.
        path: Option<String>,
    },
    /// List changes that a package or a rule explains, by what explains them.
    #[command(mut_arg("filter", |it| it.help(example::EXPLAINED)))]
    Explained {
        /// Id, the beginning of one, or hostname.
        host: String,
        /// Which, and how many.
        #[command(flatten)]
        list: Listing,
    },
    /// List the hosts that reported a content of a file, now or before.
    WhoHas {
        /// The file.
        #[arg(long, value_name = "PATH")]
        path: String,
        /// SHA-256 of the content; by default any.
        #[arg(long, value_name = "HEX")]
        sha256: Option<Digest>,
        /// At most so many.
        #[arg(long, value_parser = limit, value_name = "N")]
        limit: Option<usize>,
    },
    /// Say that open changes are as they should be. It holds for exactly the states that are there now, and for good.
    Acknowledge(Acknowledgement),
}

/// Which changes.
#[derive(Args, Debug)]
pub struct Changes {
    /// Of this host: id, the beginning of one, or hostname.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Of this file.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Only those that are open: not ended, and acknowledged by nobody.
    #[arg(long)]
    pub open: bool,
    /// Only those that the collector learned of at this time or later, such as 2026-11-24T12:00:00Z.
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Only those that it learned of before this time.
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub until: Option<Timestamp>,
    /// Which, and how many.
    #[command(flatten)]
    pub list: Listing,
    /// Exit with 1 when there is any.
    #[arg(long)]
    pub exit_code: bool,
}

/// What is acknowledged, and why.
#[derive(Args, Debug)]
pub struct Acknowledgement {
    /// The host: id, the beginning of one, or hostname.
    #[arg(long, value_name = "HOST", required_unless_present = "all_hosts", conflicts_with = "all_hosts")]
    pub host: Option<String>,
    /// Every host where the files have the same content or state.
    #[arg(long, requires = "state")]
    pub all_hosts: bool,
    /// A file; may be given more than once.
    #[arg(long, value_name = "PATH", required_unless_present = "from")]
    pub path: Vec<String>,
    /// A text file with a path a line, beside those given with --path.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Only where the file has the content with this SHA-256 now.
    #[arg(long, value_name = "HEX", group = "state")]
    pub sha256: Option<Digest>,
    /// Only where it is in the state with this digest, as -o json shows it (`after_digest`).
    #[arg(long, value_name = "HEX", group = "state")]
    pub after: Option<Digest>,
    /// Why the changes are as they should be, for the evidence log.
    #[arg(long)]
    pub reason: String,
    /// Where the change is found, such as the number of a ticket.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reference: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::ctl::cli::Cli;

    fn parses(args: &[&str]) -> bool {
        Cli::try_parse_from(["musterctl", "files", "acknowledge", "--reason", "r"].iter().chain(args)).is_ok()
    }

    #[test]
    fn what_is_acknowledged_on_all_hosts_is_one_state_and_never_whatever_is_there() {
        let digest = "ab".repeat(32);
        assert!(parses(&["--host", "web-1", "--path", "/etc/a"]));
        assert!(parses(&["--host", "web-1", "--path", "/etc/a", "--path", "/etc/b", "--sha256", &digest]));
        assert!(parses(&["--host", "web-1", "--from", "paths"]));
        assert!(parses(&["--all-hosts", "--path", "/etc/a", "--sha256", &digest]));
        assert!(parses(&["--all-hosts", "--path", "/etc/a", "--after", &digest]));
        for refused in [
            vec!["--path", "/etc/a"],
            vec!["--host", "web-1"],
            vec!["--all-hosts", "--path", "/etc/a"],
            vec!["--all-hosts", "--host", "web-1", "--path", "/etc/a", "--sha256", &digest],
            vec!["--all-hosts", "--path", "/etc/a", "--sha256", &digest, "--after", &digest],
            vec!["--host", "web-1", "--path", "/etc/a", "--sha256", "ab"],
        ] {
            assert!(!parses(&refused), "{refused:?}");
        }
    }
}
