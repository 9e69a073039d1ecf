//! A kernel or a filter of system calls that is older than a call that scans make.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
};

use muster_tests::{
    bench::syncs::can_trace,
    harness::{Folder, left_out},
    integrity::Own,
};

#[test]
fn a_look_without_the_newer_calls_sees_as_much() {
    if let Err(why) = can_trace() {
        return left_out("looks without openat2, statx and preadv2", why);
    }
    for call in ["openat2", "statx", "preadv2"] {
        for error in ["ENOSYS", "EPERM"] {
            let folder = Folder::new();
            let tree = folder.join("tree");
            fs::create_dir_all(tree.join("below/it")).unwrap();
            for path in ["file", "below/file", "below/it/file"] {
                fs::write(tree.join(path), path).unwrap();
            }
            symlink("/etc", tree.join("link")).unwrap();
            let trace = format!("trace={call}");
            let inject = format!("inject={call}:error={error}");
            let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let own = Own::at(&tree, folder.path()).under(&words);
            own.baseline().unwrap();
            fs::write(tree.join("below/it/file"), "another").unwrap();
            for what in ["quick", "check"] {
                let (told, _) = own.run(what, &[]).unwrap();
                let told = (told.code, told.changes.into_iter().collect::<Vec<_>>(), told.unreadable.len());
                let path = tree.join("below/it/file").as_os_str().as_bytes().to_vec();
                assert_eq!(told, (1, vec![(path, "content".to_owned())], 0), "{what}, {call}: {error}");
            }
        }
    }
}
