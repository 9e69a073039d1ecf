//! A machine on which files have changed: whatever one of the databases of packages says, what no package has is explained by none.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path, rc::Rc, time::Duration};

use flate2::{Compression, write::GzEncoder};
use muster_agent::{
    fim::explain::{self, Asked},
    host::Recorded,
};
use muster_proto::{
    fact::{ChangeKind, FileChange, FileState, FileType, PathText, Reading, Text},
    time::Timestamp,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Parse, Parser, write_anew};

/// When all packages were unpacked, and the look began, in seconds since 1970.
const TIME: i64 = 1_795_600_000;

/// The file of pacman's that is compressed.
const MTREE: &str = "var/lib/pacman/local/zlib-1:1.3-2/mtree";
/// Each file of the databases.
const FILES: &[(&str, &str)] = &[
    (
        "var/lib/dpkg/status",
        "Package: a\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1:2-3\nConffiles:\n \
         /etc/a.conf 900150983cd24fb0d6963f7d28e17f72 obsolete\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n\n",
    ),
    ("var/lib/dpkg/info/a:amd64.list", "/.\n/usr\n/usr/bin/a\n/usr/lib/l\n/etc/a.conf\n/usr/lib/l.so.2\n"),
    ("var/lib/dpkg/info/a:amd64.md5sums", "900150983cd24fb0d6963f7d28e17f72  usr/bin/a\n"),
    ("var/lib/dpkg/diversions", "/usr/bin/a\n/usr/bin/a.real\nb\n"),
    ("var/lib/dpkg/statoverride", "root #33 0750 /usr/bin/a\n"),
    (
        "var/lib/dpkg/alternatives/vi",
        "auto\n/usr/bin/vi\nvi.1\n/usr/share/man/vi.1\n\n/usr/bin/a\n30\n\n/usr/lib/l\n-5\n/usr/bin/a\n\n",
    ),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n"),
    ("etc/group", "root:x:0:\nwww-data:x:33:\n"),
    ("var/lib/pacman/local/zlib-1:1.3-2/desc", "%NAME%\nzlib\n\n%VERSION%\n1:1.3-2\n\n%INSTALLDATE%\n1795600000\n\n"),
    (
        MTREE,
        "#mtree\n/set type=file uid=0 gid=0 mode=644\n./usr/bin/z time=1.0 mode=755 size=3 \
         sha256digest=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n./usr/lib/z\\040z time=1.0 type=link \
         link=z\n",
    ),
];

/// MD5 of `abc`.
const MD5: [u8; 16] = [0x90, 0x01, 0x50, 0x98, 0x3c, 0xd2, 0x4f, 0xb0, 0xd6, 0x96, 0x3f, 0x7d, 0x28, 0xe1, 0x7f, 0x72];

/// Returns a parser for each file of the databases.
pub(super) fn parsers(scratch: &Path) -> Vec<Parser> {
    let folder = scratch.join("packages");
    for (path, content) in FILES {
        fs::create_dir_all(folder.join("files").join(path).parent().expect("a folder")).expect("it can be made");
        write_anew(&folder.join("files").join(path), &stored(path, content.as_bytes()));
    }
    fs::write(folder.join("index.json"), index().to_string()).expect("a file can be written");
    let host = Rc::new(Recorded::at(&folder).expect("a capture"));
    let parser = |(path, content): &(&'static str, &'static str)| {
        let (at, path, whole) = (folder.join("files").join(path), *path, content.as_bytes());
        let host = Rc::clone(&host);
        let parse: Parse = Box::new(move |bytes| {
            write_anew(&at, &stored(path, bytes));
            let explained = explained(&host);
            write_anew(&at, &stored(path, whole));
            assert!(bytes != whole || explained >= 5, "{path}: only {explained} are explained of what packages have");
        });
        Parser { name: format!("agent/packages/{path}"), seeds: vec![whole.to_vec()], parse }
    };
    FILES.iter().map(parser).collect()
}

fn stored(path: &str, bytes: &[u8]) -> Vec<u8> {
    if path != MTREE {
        return bytes.to_vec();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes it")
}

fn time() -> Timestamp {
    Timestamp::from_seconds(TIME).expect("a time")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn index() -> serde_json::Value {
    let metadata = |kind: &str| {
        json!({ "kind": kind, "size_bytes": 1, "modified": time().to_string(), "mode": 420, "uid": 0, "gid": 0, "device": [8, 1],
                "inode": 5, "links": 1, "changed_nanos": null })
    };
    let sha256 = Sha256::digest("abc").to_vec();
    let gone = json!({ "errno": 2, "kind": "", "text": "" });
    json!({
        "version": 1, "captured": time().to_string(),
        "lists": {
            "/var/lib/dpkg/info": ["a:amd64.list", "a:amd64.md5sums"], "/var/lib/dpkg/alternatives": ["vi"],
            "/var/lib/pacman/local": ["zlib-1:1.3-2"],
        },
        "links": { "/etc/alternatives/vi": "/usr/bin/a", "/usr/lib/l": "l.so.2", "/usr/bin/evil": "/tmp/x" },
        "metadata": {
            "/var/lib/dpkg/status": metadata("file"), "/var/lib/dpkg/info/a:amd64.list": metadata("file"),
            "/var/lib/pacman/local": metadata("folder"), "/usr/bin/a": metadata("file"), "/usr/lib/l.so.2": metadata("file"),
        },
        "digests": {
            "/usr/bin/a.real": { "sha256": sha256, "md5": MD5 }, "/etc/a.conf": { "sha256": sha256, "md5": MD5 },
        },
        "errors": {
            "list /var/lib/dpkg/updates": gone, "list /var/lib/alternatives": gone, "list /var/lib/rpm/alternatives": gone,
        },
    })
}

/// Returns how many differences are explained. One that no package can have made is not.
fn explained(host: &Recorded) -> usize {
    let file = |content: &str| FileState {
        r#type: FileType::File,
        sha256: Text::new(&hex(&Sha256::digest(content))),
        size_bytes: 3,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_time: Reading::Known(time()),
        changed_time: None,
        inode: 0,
        links: 1,
        md5: Text::default(),
        extended_attributes: Vec::new(),
    };
    let link = |target: &str| FileState { r#type: FileType::Link, mode: 0o777, ..file(target) };
    let changes = [
        ("/usr/bin/a.real", file("abc")),
        ("/etc/a.conf", file("abc")),
        ("/etc/ld.so.cache", file("any")),
        ("/etc/alternatives/vi", link("/usr/bin/a")),
        ("/usr/lib/l", link("l.so.2")),
        ("/usr/bin/z", FileState { mode: 0o755, ..file("abc") }),
        ("/usr/bin/evil", link("/tmp/x")),
        ("/usr/bin/tampered", FileState { mode: 0o4755, ..file("evil") }),
    ];
    let before = time().minus(Duration::from_secs(60));
    let mut changes: BTreeMap<Vec<u8>, FileChange> = changes
        .into_iter()
        .map(|(path, after)| (path.as_bytes().to_vec(), change(path, &file("old"), after, before)))
        .collect();
    let mut asked = explain::Changes::new();
    for (path, change) in &mut changes {
        asked.insert(path, Asked { change, root: b"/", since: before, is_new: true });
    }
    let _ = explain::explain(host, None, &mut asked);
    for path in ["/usr/bin/evil", "/usr/bin/tampered"] {
        let explanation = &changes[path.as_bytes()].explanation;
        assert!(explanation.is_none(), "{path} is explained by {explanation:?}");
    }
    changes.values().filter(|change| change.explanation.is_some()).count()
}

fn change(path: &str, before: &FileState, after: FileState, last: Timestamp) -> FileChange {
    FileChange {
        path: PathText::from_bytes(path.as_bytes()),
        kind: ChangeKind::Content,
        before: Some(before.clone()),
        after: Some(after),
        last_unchanged_time: last,
        detected_time: time(),
        while_not_observed: false,
        set: Text::default(),
        explanation: None,
        actors: Vec::new(),
        states_seen: 1,
    }
}
