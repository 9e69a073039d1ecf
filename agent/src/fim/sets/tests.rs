//! What sets cover, beside a naive reading of their patterns.

use std::path::PathBuf;

use muster_proto::fact::{HostClass, Severity};
use proptest::prelude::*;

use super::*;

fn set(name: &str, paths: &[&str]) -> WatchSet {
    WatchSet::of_paths(name, paths.iter().map(PathBuf::from).collect())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Returns what covers `path`, by name and most severe first: `-` is outside, `>` is passed.
fn rule(sets: &Sets, path: &str, kind: EntryKind) -> String {
    match sets.rule(path.as_bytes(), kind) {
        Rule::Outside => "-".to_owned(),
        Rule::Pass => ">".to_owned(),
        Rule::Covered { set, attributes, members } => {
            assert_eq!(members.first(), Some(set), "{path}");
            let compared = members.iter().map(|at| sets.sets()[at].attributes);
            assert_eq!(compared.reduce(Attributes::with), Some(attributes), "{path}");
            members.iter().map(|at| sets.sets()[at].name.as_str()).collect::<Vec<_>>().join(" ")
        }
    }
}

fn check(sets: &Sets, cases: &[(&str, &str)]) {
    for (path, expected) in cases {
        assert_eq!(rule(sets, path, EntryKind::Folder), *expected, "folder {path}");
        // Nothing is below a file.
        let of_file = if *expected == ">" { "-" } else { expected };
        assert_eq!(rule(sets, path, EntryKind::File), of_file, "file {path}");
    }
}

#[test]
fn a_path_covers_itself_and_what_is_below_it() {
    let sets = Sets::new(&[set("a", &["/etc/", "/usr//bin", "/etc"])]).unwrap();
    let cases = [
        ("/", ">"),
        ("/etc", "a"),
        ("/etc/a/b", "a"),
        ("/etcetera", "-"),
        ("/usr", ">"),
        ("/usr/bin/x", "a"),
        ("/usr/lib", "-"),
        ("/var", "-"),
    ];
    check(&sets, &cases);
    assert!(sets.roots().iter().map(|root| root.path.as_slice()).eq([&b"/etc"[..], b"/usr/bin"]));
    check(&Sets::new(&[set("all", &["/"])]).unwrap(), &[("/", "all"), ("/a", "all"), ("/a/b", "all")]);
    assert!(Sets::new(&[]).unwrap().roots().is_empty());
}

#[test]
fn the_most_severe_set_speaks_and_all_that_cover_count() {
    let severe = |severity, set| WatchSet { severity, ..set };
    let metadata = Attributes::MODE.with(Attributes::OWNER);
    let sets = Sets::new(&[
        severe(Severity::Low, set("all", &["/"])),
        WatchSet { attributes: metadata, ..severe(Severity::Critical, set("keys", &["/etc/ssh", "/root"])) },
        severe(Severity::High, set("b", &["/etc"])),
        severe(Severity::High, set("a", &["/etc/ssh/sshd_config"])),
    ])
    .unwrap();
    let cases = [
        ("/", "all"),
        ("/etc", "b all"),
        ("/etc/ssh", "keys b all"),
        ("/etc/ssh/sshd_config", "keys a b all"),
        ("/etc/sshd", "b all"),
        ("/root/x", "keys all"),
    ];
    check(&sets, &cases);
    let [root] = sets.roots() else { panic!("one root") };
    assert_eq!((root.path.as_slice(), root.below.len(), root.members.iter().count()), (&b"/"[..], 4, 4));
    assert_eq!(sets.definitions().len(), 4);
    assert_eq!(sets.definitions()[0], sets.sets()[0].digest());
}

#[test]
fn exclusion_comes_first_and_takes_everything_below_along() {
    let sets = Sets::new(&[
        WatchSet {
            include: texts(&["etc/**/*.conf", "etc/cache/**"]),
            exclude: texts(&["etc/cache", "etc/*/tmp", "**/*.swp"]),
            ..set("conf", &["/etc"])
        },
        set("kept", &["/etc/cache/keep"]),
    ])
    .unwrap();
    let cases = [
        ("/etc", ">"),
        ("/etc/a.conf", "conf"),
        ("/etc/a/b/c.conf", "conf"),
        ("/etc/a/b", ">"),
        ("/etc/cache", ">"),
        ("/etc/cache/a.conf", "-"),
        ("/etc/cache/keep", "kept"),
        ("/etc/cache/keep/a.conf", "kept"),
        ("/etc/a/tmp", "-"),
        ("/etc/a/tmp/b/c.conf", "-"),
        ("/etc/a.swp/b.conf", "-"),
        ("/etc/cache.conf", "conf"),
    ];
    check(&sets, &cases);
    assert_eq!(rule(&sets, "/etc/readme", EntryKind::File), "-");
}

#[test]
fn a_link_in_the_place_of_a_folder_that_is_passed_is_covered_as_far_as_it_is_named() {
    let sets = Sets::new(&[
        WatchSet { include: texts(&["home/*/.ssh/keys*", "home/*/bin/**/*.sh"]), ..set("keys", &["/home"]) },
        WatchSet { depth: 1, include: texts(&["home/a/b"]), ..set("shallow", &["/home"]) },
        set("deep", &["/home/x/y/z"]),
    ])
    .unwrap();
    for (path, of_link, of_file) in [
        ("/home", "deep keys shallow", "-"),
        ("/home/u", "keys", "-"),
        ("/home/u/.ssh", "keys", "-"),
        ("/home/u/.ssh/keys2", "keys", "keys"),
        ("/home/u/.ssh/rc", "-", "-"),
        ("/home/u/bin", "keys", "-"),
        ("/home/u/bin/a", "-", "-"),
        ("/home/u/bin/a.sh", "keys", "keys"),
        ("/home/u/Documents", "-", "-"),
        ("/home/x/y", "deep", "-"),
        ("/home/x/y/z", "deep", "deep"),
        ("/home/x/z", "-", "-"),
        ("/usr", "-", "-"),
    ] {
        assert_eq!(rule(&sets, path, EntryKind::Link), of_link, "link {path}");
        assert_eq!(rule(&sets, path, EntryKind::File), of_file, "file {path}");
    }
}

#[test]
fn a_depth_is_counted_from_the_path_that_gives_the_most() {
    let sets = Sets::new(&[
        WatchSet { depth: 1, ..set("one", &["/a", "/a/b/c"]) },
        WatchSet { depth: 2, include: texts(&["d/*/*/x", "d/y"]), ..set("two", &["/d"]) },
        WatchSet { depth: 1, ..set("top", &["/"]) },
    ])
    .unwrap();
    let cases = [
        ("/a", "one top"),
        ("/a/b", "one"),
        ("/a/b/c", "one"),
        ("/a/b/c/d", "one"),
        ("/a/b/c/d/e", "-"),
        ("/a/b/d", "-"),
        ("/a/x/y", "-"),
        ("/d", "top"),
        ("/d/z", ">"),
        ("/d/y", "two"),
        ("/d/z/z", "-"),
        ("/e", "top"),
        ("/e/f", "-"),
    ];
    for (path, expected) in cases {
        assert_eq!(rule(&sets, path, EntryKind::Folder), expected, "{path}");
    }
}

#[test]
fn mount_points_are_crossed_where_they_are_watched_or_asked_for() {
    let sets = Sets::new(&[
        WatchSet { cross_mounts: true, ..set("boot", &["/boot"]) },
        set("all", &["/usr", "/usr/share"]),
        set("etc", &["/etc"]),
    ])
    .unwrap();
    for (path, expected) in [("/boot", true), ("/boot/efi", true), ("/usr", true), ("/usr/share", true)] {
        assert_eq!(sets.crosses(path.as_bytes()), expected, "{path}");
    }
    for path in ["/usr/lib", "/etc/x", "/var", "/"] {
        assert!(!sets.crosses(path.as_bytes()), "{path}");
    }
    let crossing: Vec<_> = sets.roots().iter().map(|root| (root.path.as_slice(), root.cross_mounts)).collect();
    assert_eq!(crossing, [(&b"/boot"[..], true), (b"/etc", false), (b"/usr", false)]);
}

#[test]
fn names_that_are_not_utf8_are_matched_as_bytes() {
    let sets = Sets::new(&[WatchSet { exclude: texts(&["a/*.tmp"]), ..set("a", &["/a"]) }]).unwrap();
    assert_eq!(sets.rule(b"/a/\xff\n.tmp", EntryKind::File), Rule::Outside);
    assert!(matches!(sets.rule(b"/a/\xff.txt", EntryKind::File), Rule::Covered { .. }));
}

#[test]
fn sets_that_cannot_be_used_are_refused_by_name() {
    let excluded = WatchSet { exclude: texts(&["etc"]), ..set("a", &["/usr", "/etc/ssh"]) };
    let elsewhere = WatchSet { include: texts(&["etc/**"]), ..set("b", &["/etc", "/usr"]) };
    for (sets, part) in [
        (vec![excluded], "watch set \"a\": its own patterns leave nothing of its path \"/etc/ssh\""),
        (vec![elsewhere], "watch set \"b\": its own patterns leave nothing of its path \"/usr\""),
        (vec![set("a", &["etc"])], "watch set \"a\": its path \"etc\""),
        (vec![set("a", &["/a"]), set("a", &["/b"])], "two watch sets are named \"a\""),
    ] {
        let error = Sets::new(&sets).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn patterns_that_are_made_to_cost_are_bounded() {
    let costly: Vec<_> = (0..40).map(|n| format!("{}x{n}", "**/a*a*/".repeat(40))).collect();
    let sets = Sets::new(&[WatchSet { include: costly, ..set("a", &["/"]) }]).unwrap();
    let path = "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".repeat(30);
    assert_eq!(rule(&sets, &path, EntryKind::Folder), ">");
    assert_eq!(rule(&sets, &path, EntryKind::File), "-");
}

#[test]
fn defaults_cover_what_auditors_ask_for_and_not_what_changes_by_itself() {
    for class in [None, Some(HostClass::Server), Some(HostClass::Vm), Some(HostClass::Laptop), Some(HostClass::Desktop)]
    {
        let sets = Sets::new(&defaults(class)).unwrap();
        for path in [
            "/boot/vmlinuz",
            "/boot/efi/EFI/BOOT/BOOTX64.EFI",
            "/etc",
            "/etc/passwd",
            "/etc/shadow",
            "/etc/ld.so.preload",
            "/etc/sudoers.d/x",
            "/etc/pam.d/sshd",
            "/etc/ssh/sshd_config",
            "/etc/systemd/system/x.service",
            "/etc/cron.d/x",
            "/var/spool/cron/crontabs/root",
            "/root/.ssh/authorized_keys",
            "/root/.bashrc",
            "/home/a/.ssh/authorized_keys",
            "/usr/bin/ls",
            "/usr/sbin/sshd",
            "/usr/lib/systemd/systemd",
            "/usr/lib/modules/6/x.ko",
            "/usr/lib/python3/dist-packages/__pycache__/x.cpython-311.pyc",
            "/usr/bin/muster-agent",
            "/etc/muster/agent.toml",
            "/etc/ssl/certs/x.pem",
            "/var/lib/dpkg/info/x.md5sums",
            "/var/lib/rpm/rpmdb.sqlite",
        ] {
            assert!(matches!(sets.rule(path.as_bytes(), EntryKind::File), Rule::Covered { .. }), "{class:?} {path}");
        }
        for path in ["/boot/grub/grubenv", "/etc/adjtime", "/home/a/.bash_history", "/root/.ssh/known_hosts.old"] {
            assert_eq!(rule(&sets, path, EntryKind::File), "-", "{class:?} {path}");
        }
        for path in ["/home", "/home/a", "/home/a/.ssh", "/root", "/root/.ssh"] {
            assert!(rule(&sets, path, EntryKind::Link).starts_with("ssh"), "{class:?} {path}");
            assert_eq!(rule(&sets, path, EntryKind::Folder), ">", "{class:?} {path}");
        }
        assert_eq!(rule(&sets, "/home/aquota.user", EntryKind::File), "-");
        // Homes are not searched.
        assert_eq!(rule(&sets, "/home/a/Documents", EntryKind::Folder), "-");
        let severe = |path: &str| match sets.rule(path.as_bytes(), EntryKind::File) {
            Rule::Covered { set, .. } => sets.sets()[set].severity,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!((severe("/etc/shadow"), severe("/etc/motd")), (Severity::Critical, Severity::Medium));
        let is_personal = matches!(class, Some(HostClass::Laptop | HostClass::Desktop));
        assert_eq!(rule(&sets, "/etc/resolv.conf", EntryKind::File) == "-", is_personal);
    }
}

/// What a set covers, said in the plainest way.
fn naive(sets: &[WatchSet], path: &str) -> Vec<String> {
    let is_covered = |set: &WatchSet| {
        let below = path.trim_start_matches('/');
        let is_matched = |pattern: &String, with_content: bool| {
            let one = [pattern];
            if with_content {
                Patterns::with_content(&one).unwrap().is_match(below.as_bytes())
            } else {
                Patterns::exact(std::slice::from_ref(pattern)).unwrap().is_match(below.as_bytes())
            }
        };
        let is_reached = set.plain_paths().iter().any(|above| {
            let deepest = depth(above) + set.depth as usize;
            is_at_or_below(path.as_bytes(), above) && (set.depth == 0 || depth(path.as_bytes()) <= deepest)
        });
        is_reached
            && !set.exclude.iter().any(|pattern| is_matched(pattern, true))
            && (set.include.is_empty() || set.include.iter().any(|pattern| is_matched(pattern, false)))
    };
    let mut names: Vec<_> = sets.iter().filter(|set| is_covered(set)).map(|set| set.name.clone()).collect();
    names.sort();
    names
}

fn any_set(name: &'static str) -> impl Strategy<Value = WatchSet> {
    let path = "(/[ab]){1,3}";
    let pattern = r"([ab*]|\*\*)(/([ab?]|\*\*|[ab]\*)){0,3}";
    let patterns = || proptest::collection::vec(pattern, 0..2);
    (proptest::collection::vec(path, 1..4), patterns(), patterns(), 0_u32..3).prop_map(
        move |(paths, include, exclude, depth)| WatchSet {
            include,
            exclude,
            depth,
            ..WatchSet::of_paths(name, paths.into_iter().map(PathBuf::from).collect())
        },
    )
}

proptest! {
    #[test]
    fn rules_are_those_of_the_definitions_and_every_covered_entry_is_reached(
        a in any_set("a"), b in any_set("b"), c in any_set("c"), paths in proptest::collection::vec("(/[ab]){1,5}", 1..20),
    ) {
        let list: Vec<_> = [a, b, c].into_iter().filter(|set| Sets::new(std::slice::from_ref(set)).is_ok()).collect();
        let sets = Sets::new(&list).unwrap();
        for path in &paths {
            let covering = match sets.rule(path.as_bytes(), EntryKind::File) {
                Rule::Covered { members, .. } => members.iter().map(|at| sets.sets()[at].name.clone()).collect(),
                _ => Vec::new(),
            };
            prop_assert_eq!(&covering, &naive(&list, path), "{}", path);
            if covering.is_empty() {
                continue;
            }
            let root = sets.roots().iter().find(|root| is_at_or_below(path.as_bytes(), &root.path)).expect("a root is above");
            for (at, _) in path.match_indices('/').filter(|(at, _)| *at >= root.path.len()) {
                prop_assert_ne!(sets.rule(&path.as_bytes()[..at], EntryKind::Folder), Rule::Outside, "{} to {}", &path[..at], path);
            }
        }
    }
}

#[test]
fn a_path_is_whole_where_a_set_covers_its_content_without_patterns_and_without_a_depth() {
    let mut narrowed = set("narrowed", &["/etc"]);
    narrowed.exclude = texts(&["etc/adjtime"]);
    let mut shallow = set("shallow", &["/srv"]);
    shallow.depth = 1;
    let mut metadata = set("metadata", &["/var/log"]);
    metadata.attributes = Attributes::default().without(Attributes::CONTENT);
    let sets = [narrowed, shallow, metadata, set("whole", &["/usr/bin", "/etc/ssh"])];
    let sets = Sets::new(&sets).unwrap();
    for (path, expected) in [
        ("/usr/bin", true),
        ("/usr/bin/a", true),
        ("/etc/ssh", true),
        ("/etc", false),
        ("/etc/adjtime", false),
        ("/srv", false),
        ("/var/log", false),
        ("/opt", false),
    ] {
        assert_eq!(sets.is_whole(path.as_bytes()), expected, "{path}");
    }
}
