//! Which sets may be asked for, and that a digest is of every part of one.

use super::*;

fn set(name: &str, paths: &[&str]) -> WatchSet {
    WatchSet::of_paths(name, paths.iter().map(PathBuf::from).collect())
}

fn full() -> WatchSet {
    WatchSet {
        include: vec!["etc/**/*.conf".to_owned(), "etc/ssh/*".to_owned()],
        exclude: vec!["etc/mtab".to_owned()],
        depth: 3,
        attributes: Attributes::TYPE.with(Attributes::CONTENT),
        severity: Severity::Critical,
        owner: "platform team".to_owned(),
        cross_mounts: true,
        ..set("config", &["/etc", "/usr/etc"])
    }
}

#[test]
fn the_wire_gives_back_the_set() {
    for set in [full(), set("paths", &["/etc"])] {
        assert_eq!(from_wire(&[set.to_wire()]), Ok(vec![set]));
    }
    let bare = v1::WatchSetDefinition { name: "a".to_owned(), paths: vec!["/a".to_owned()], ..Default::default() };
    assert_eq!(from_wire(&[bare]), Ok(vec![set("a", &["/a"])]));
}

#[test]
fn the_digest_is_that_of_the_bytes_which_the_contract_names() {
    let mut bytes = b"muster/watch-set/v1\0".to_vec();
    let mut add = |parts: &[&[u8]]| parts.iter().for_each(|part| bytes.extend(*part));
    add(&[&[0, 0, 0, 6], b"config"]);
    add(&[&[0, 0, 0, 2], &[0, 0, 0, 4], b"/etc", &[0, 0, 0, 8], b"/usr/etc"]);
    add(&[&[0, 0, 0, 2], &[0, 0, 0, 13], b"etc/**/*.conf", &[0, 0, 0, 9], b"etc/ssh/*"]);
    add(&[&[0, 0, 0, 1], &[0, 0, 0, 8], b"etc/mtab"]);
    add(&[&[0, 0, 0, 3]]);
    add(&[&[0, 0, 0, 2], &[0, 0, 0, 7], b"content", &[0, 0, 0, 4], b"type"]);
    add(&[&[0, 0, 0, 8], b"critical"]);
    add(&[&[0, 0, 0, 13], b"platform team"]);
    add(&[&[1]]);
    assert_eq!(full().digest(), Digest::of_bytes(&bytes));
}

#[test]
fn order_and_spelling_make_no_other_digest_and_every_field_does() {
    let same = WatchSet {
        paths: ["/usr//etc/", "/./etc", "/etc"].iter().map(PathBuf::from).collect(),
        include: vec!["etc/ssh/*".to_owned(), "etc/**/*.conf".to_owned(), "etc/ssh/*".to_owned()],
        ..full()
    };
    assert_eq!(same.digest(), full().digest());
    let others = [
        WatchSet { name: "other".to_owned(), ..full() },
        set("config", &["/etc", "/usr/etc"]),
        WatchSet { paths: vec!["/etc".into()], ..full() },
        WatchSet { include: vec![], ..full() },
        WatchSet { exclude: vec![], ..full() },
        WatchSet { include: full().exclude, exclude: full().include, ..full() },
        WatchSet { depth: 0, ..full() },
        WatchSet { attributes: Attributes::TYPE, ..full() },
        WatchSet { severity: Severity::High, ..full() },
        WatchSet { owner: String::new(), ..full() },
        WatchSet { cross_mounts: false, ..full() },
    ];
    let digests: BTreeSet<_> = others.iter().chain([&full()]).map(WatchSet::digest).collect();
    assert_eq!(digests.len(), others.len() + 1);
}

#[test]
fn a_set_that_cannot_be_used_is_named_with_what_to_do() {
    let pattern = |pattern: &str| vec![pattern.to_owned()];
    for (set, part) in [
        (set("", &["/etc"]), "its name is not"),
        (set("Config", &["/etc"]), "its name is not"),
        (set(&"a".repeat(65), &["/etc"]), "its name is not"),
        (set("a", &[]), "it has 0 paths"),
        (set("a", &vec!["/etc"; 1001]), "it has 1001 paths"),
        (set("a", &["etc"]), "\"etc\" is not an absolute path"),
        (set("a", &["/etc/../root"]), "is not an absolute path"),
        (set("a", &["/etc", ""]), "\"\" is not an absolute path"),
        (set("a", &[&format!("/{}", "b".repeat(4096))]), "is not an absolute path"),
        (WatchSet { include: pattern("/etc"), ..set("a", &["/etc"]) }, "leave out its first slash"),
        (WatchSet { exclude: pattern("[a"), ..set("a", &["/etc"]) }, "\"[a\" cannot be used"),
        (WatchSet { exclude: vec!["a".to_owned(); 1001], ..set("a", &["/etc"]) }, "1001 patterns"),
        (WatchSet { owner: "o".repeat(257), ..set("a", &["/etc"]) }, "257 bytes"),
    ] {
        let error = check(std::slice::from_ref(&set)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("watch set {:?}: ", set.name)) && error.contains(part), "{error}");
    }
    let wire = |severity: &str, attribute: &str| v1::WatchSetDefinition {
        severity: severity.to_owned(),
        attributes: vec![attribute.to_owned()],
        ..set("a", &["/etc"]).to_wire()
    };
    for (wire, part) in [(wire("bad", "type"), "its severity is \"bad\""), (wire("low", "color"), "\"color\"")] {
        let error = from_wire(&[wire]).unwrap_err().to_string();
        assert!(error.starts_with("watch set \"a\": ") && error.contains(part), "{error}");
    }
}

#[test]
fn sets_are_bounded_together_and_have_unlike_names() {
    let numbered = |count: usize| (0..count).map(|number| set(&format!("s{number}"), &["/etc"])).collect::<Vec<_>>();
    assert_eq!(check(&numbered(limits::WATCH_SETS)), Ok(()));
    assert_eq!(check(&numbered(limits::WATCH_SETS + 1)), Err(Error::TooMany(limits::WATCH_SETS + 1)));
    let many: Vec<_> = numbered(limits::WATCH_SETS + 1).iter().map(WatchSet::to_wire).collect();
    assert_eq!(from_wire(&many), Err(Error::TooMany(limits::WATCH_SETS + 1)));
    assert_eq!(check(&[set("a", &["/a"]), set("a", &["/b"])]), Err(Error::Twice("a".to_owned())));
    let long = WatchSet { include: (0..50).map(|n| format!("{n:0>1000}")).collect(), ..set("a", &["/a"]) };
    assert!(matches!(check(&[long]), Err(Error::TooLong(bytes)) if bytes > 50_000));
}
