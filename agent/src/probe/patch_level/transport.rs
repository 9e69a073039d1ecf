//! Whether what a repository of dnf or zypper offers came by a way on which nobody else may have written.
//!
//! dnf asks for no signature over metadata unless `repo_gpgcheck` says so (dnf.conf(5)); what then vouches for them is TLS, or that they
//! are files of this host. A metalink holds digests of the metadata, so that the mirrors that it names need not be trusted; a list of
//! mirrors holds their addresses alone.

use muster_proto::fact::{Cause, Reading, Unknown};

use super::ini::Section;

/// How metadata come: of several ways, the worst.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Transport {
    /// From files of this host, or by TLS from a server whose certificate is checked.
    Trusted,
    /// From mirrors, whose addresses came so.
    Mirrors,
    /// By a way that is not known here.
    Untold,
    /// So that others on the way may change them.
    Open,
}

impl Transport {
    /// Returns the transport that the settings of a repository name; `main` are those of all.
    pub(super) fn of(section: &Section, main: &Section) -> Self {
        let is_checked = section.switch("sslverify").or_else(|| main.switch("sslverify")).unwrap_or(true);
        let ways = ["metalink", "mirrorlist", "baseurl"].into_iter();
        let ways = ways.flat_map(|key| section.words(&[key]).into_iter().map(move |url| (key, url)));
        let worst = ways.map(|(key, url)| match of_url(url, is_checked) {
            // What names a metalink is one under this key, too (dnf.conf(5)).
            Self::Trusted if key == "mirrorlist" && !url.contains("metalink") => Self::Mirrors,
            transport => transport,
        });
        worst.max().unwrap_or(Self::Untold)
    }

    /// Returns whether metadata over which no signature is asked for are verified; `mirrors` reads the list of mirrors that was fetched.
    pub(super) fn verified(self, mirrors: impl FnOnce() -> Result<String, Unknown>) -> Reading<bool> {
        let undecidable = |detail: &str| Reading::unknown(Cause::Undecidable, detail);
        let trusted = || Reading::unknown(Cause::Absent, "no signature over the metadata is asked for");
        match self {
            Self::Trusted => trusted(),
            Self::Open => Reading::Known(false),
            Self::Untold => {
                undecidable("no signature over the metadata is asked for, and how they come is not known here")
            }
            Self::Mirrors => match mirrors() {
                Ok(list) if are_trusted(&list) => trusted(),
                Ok(_) => {
                    undecidable("no signature over the metadata is asked for, and not all mirrors have https addresses")
                }
                Err(unknown) if unknown.cause == Cause::Absent => {
                    undecidable("no signature over the metadata is asked for, and the list of mirrors was not kept")
                }
                Err(unknown) => Reading::Unknown { unknown },
            },
        }
    }
}

/// Returns whether all of some mirrors have trusted addresses, and there are any.
fn are_trusted(list: &str) -> bool {
    let mut urls = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    urls.peek().is_some() && urls.all(|url| of_url(url, true) == Transport::Trusted)
}

/// Returns the transport of an address, where certificates are or are not checked.
fn of_url(url: &str, is_checked: bool) -> Transport {
    if url.starts_with('/') {
        return Transport::Trusted;
    }
    let Some((scheme, rest)) = url.split_once(':') else { return Transport::Untold };
    // zypper's way to switch the check off (libzypp, `ssl_verify`).
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    let is_checked = is_checked && !parameters.contains("ssl_verify=");
    match scheme.to_ascii_lowercase().as_str() {
        "https" if is_checked => Transport::Trusted,
        "https" | "http" | "ftp" | "nfs" | "nfs4" | "smb" | "cifs" | "tftp" => Transport::Open,
        "file" | "dir" | "hd" | "cd" | "dvd" | "iso" => Transport::Trusted,
        _ => Transport::Untold,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::ini, *};

    fn transport(settings: &str) -> Transport {
        let sections = ini::sections(settings);
        let main = sections.iter().find(|section| section.name == "main").cloned().unwrap_or_default();
        Transport::of(sections.last().unwrap(), &main)
    }

    #[test]
    fn what_comes_by_plain_http_or_by_unchecked_tls_is_open() {
        for (settings, expected) in [
            ("[a]\nbaseurl=https://cdn.example.com/os\n", Transport::Trusted),
            ("[a]\nbaseurl=HTTPS://cdn.example.com/os\n", Transport::Trusted),
            ("[a]\nbaseurl=file:///srv/rpms\n", Transport::Trusted),
            ("[a]\nbaseurl=/srv/rpms\n", Transport::Trusted),
            ("[a]\nbaseurl=http://mirror.internal/os\n", Transport::Open),
            ("[a]\nbaseurl=https://one/os, http://two/os\n", Transport::Open),
            ("[a]\nbaseurl=https://one/os\n  http://two/os\n", Transport::Open),
            ("[a]\nbaseurl=https://one/os\nsslverify=0\n", Transport::Open),
            ("[main]\nsslverify=False\n[a]\nbaseurl=https://one/os\n", Transport::Open),
            ("[main]\nsslverify=False\n[a]\nsslverify=1\nbaseurl=https://one/os\n", Transport::Trusted),
            ("[a]\nbaseurl=https://one/os?ssl_verify=no\n", Transport::Open),
            ("[a]\nmetalink=https://mirrors.example.com/metalink?repo=a\n", Transport::Trusted),
            ("[a]\nmetalink=http://mirrors.example.com/metalink?repo=a\n", Transport::Open),
            ("[a]\nmirrorlist=https://mirrors.example.com/mirrorlist?repo=a\n", Transport::Mirrors),
            ("[a]\nmirrorlist=https://mirrors.example.com/metalink?repo=a\n", Transport::Trusted),
            ("[a]\nmirrorlist=http://mirrors.example.com/mirrorlist\n", Transport::Open),
            ("[a]\nmetalink=https://m/metalink\nbaseurl=http://two/os\n", Transport::Open),
            ("[a]\nbaseurl=$scheme://one/os\n", Transport::Untold),
            ("[a]\nbaseurl=plugin:spacewalk\n", Transport::Untold),
            ("[a]\n", Transport::Untold),
        ] {
            assert_eq!(transport(settings), expected, "{settings}");
        }
    }

    #[test]
    fn metadata_without_a_signature_are_as_good_as_their_way() {
        let known = |transport: Transport, list: &str| transport.verified(|| Ok(list.to_owned()));
        let cause = |reading: Reading<bool>| match reading {
            Reading::Known(_) => None,
            Reading::Unknown { unknown } => Some(unknown.cause),
        };
        assert_eq!(cause(known(Transport::Trusted, "")), Some(Cause::Absent));
        assert_eq!(known(Transport::Open, ""), Reading::Known(false));
        assert_eq!(cause(known(Transport::Untold, "")), Some(Cause::Undecidable));
        for (list, expected) in [
            ("# repo = BaseOS\nhttps://one/os\nhttps://two/os\n", Cause::Absent),
            ("https://one/os\nhttp://two/os\n", Cause::Undecidable),
            ("# none\n\n", Cause::Undecidable),
        ] {
            assert_eq!(cause(known(Transport::Mirrors, list)), Some(expected), "{list}");
        }
        for (met, told) in [(Cause::Forbidden, Cause::Forbidden), (Cause::Absent, Cause::Undecidable)] {
            let reading = Transport::Mirrors.verified(|| Err(Unknown::new(met, "read")));
            assert_eq!(cause(reading), Some(told), "absent would be a trusted transport");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_addresses_never_panic(key in "(baseurl|mirrorlist|metalink)", url in "\\PC*") {
            let _ = transport(&format!("[a]\n{key}={url}\n"));
        }
    }
}
