//! Tests of sudoers(5).

use muster_proto::time::Timestamp;
use proptest::prelude::*;

use super::*;

/// Returns what a file comes to on the host `web1`, and why there may be more.
fn read(file: &str) -> (Vec<Grant>, Option<String>) {
    let mut sudoers = Sudoers::default();
    for (number, line) in logical_lines(file) {
        sudoers.add_line(without_comment(&line).trim(), &format!("f:{number}"));
    }
    let mut superusers = Superusers::default();
    superusers.names.insert("toor".to_owned());
    superusers.groups.insert("wheel".to_owned());
    superusers.gids.insert(10);
    superusers.powerful_groups.insert("disk".to_owned());
    superusers.powerful_gids.insert(6);
    let grants = grants(&mut sudoers, &superusers, "web1.example.com");
    (grants, sudoers.untold.map(|unknown| unknown.detail.to_string()))
}

/// Returns each grant as `who at [all] [free]`.
fn shown(file: &str) -> Vec<String> {
    let text = |grant: Grant| {
        let all = if grant.all_commands { " all" } else { "" };
        let free = if grant.no_password { " free" } else { "" };
        format!("{} {}{all}{free}", grant.who, grant.at)
    };
    let (grants, untold) = read(file);
    assert_eq!(untold, None, "{file}");
    grants.into_iter().map(text).collect()
}

#[test]
fn what_could_not_be_read_goes_before_what_was_not_understood() {
    let mut sudoers = Sudoers::default();
    for (cause, expected) in [
        (Cause::Undecidable, Cause::Undecidable),
        (Cause::Forbidden, Cause::Forbidden),
        (Cause::Undecidable, Cause::Forbidden),
        (Cause::Failed, Cause::Forbidden),
    ] {
        sudoers.doubt(Unknown::new(cause, ""));
        assert_eq!(sudoers.untold.as_ref().map(|unknown| unknown.cause), Some(expected));
    }
}

#[test]
fn a_rule_says_who_may_run_what_as_the_superuser() {
    for (file, expected) in [
        ("root ALL=(ALL:ALL) ALL", &["root f:1 all"] as &[&str]),
        ("# a comment\n%sudo\tALL=(ALL:ALL) ALL # behind", &["%sudo f:2 all"]),
        ("alice ALL=(ALL) NOPASSWD:ALL", &["alice f:1 all free"]),
        ("alice ALL = NOPASSWD : SETENV: ALL", &["alice f:1 all free"]),
        ("alice, bob ALL=(root) /bin/ls, /bin/cat", &["alice f:1", "bob f:1"]),
        ("#1000 ALL=ALL", &["#1000 f:1 all"]),
        ("\"domain admins\" ALL=ALL", &["domain admins f:1 all"]),
        ("%domain\\ admins ALL=ALL", &["%domain admins f:1 all"]),
        ("alice ALL=(postgres) ALL", &[]),
        ("alice ALL=(postgres) ALL, (root) /bin/ls", &["alice f:1"]),
        ("alice ALL=(www, root : adm) NOPASSWD: /bin/a, PASSWD: /bin/b", &["alice f:1 free"]),
        ("alice ALL=(:adm) ALL", &[]),
        ("alice ALL=(root) sha224:0gjh== /bin/ls", &["alice f:1"]),
        ("alice ALL=(root) sudoedit /etc/hosts", &["alice f:1"]),
        ("alice ALL=(root) !/bin/su", &[]),
        ("alice ALL=(root) NOPASSWD: /bin/systemctl ^(start|stop) [[:alpha:]]+$, /bin/x", &["alice f:1 free"]),
        ("alice ALL=/bin/git reset HEAD^", &["alice f:1"]),
        ("alice ALL=/bin/ls, !^/bin/su$", &["alice f:1"]),
        ("alice ALL=(www) ^/bin/.*$", &[]),
        ("alice ALL=/bin/echo (, ALL", &["alice f:1 all"]),
        ("alice ALL=/bin/echo ( : web1=ALL", &["alice f:1", "alice f:1 all"]),
        ("alice ALL=CWD=/x TIMEOUT=3 ALL", &["alice f:1 all"]),
        ("alice ALL=\\\n  ALL", &["alice f:1 all"]),
        ("alice other=ALL : web1=(root) ALL", &["alice f:1 all"]),
        ("alice other,third.example=ALL", &[]),
        ("alice WEB1=ALL", &["alice f:1 all"]),
    ] {
        assert_eq!(shown(file), expected, "{file}");
    }
}

#[test]
fn a_command_that_a_regular_expression_names_is_some_command_at_least() {
    let (grants, untold) = read("alice ALL=NOPASSWD: ^/bin/.*$");
    let expected = Grant { who: "alice".to_owned(), at: "f:1".to_owned(), all_commands: false, no_password: true };
    assert_eq!(grants, [expected]);
    assert_eq!(untold.as_deref(), Some("f:1: a command that a regular expression names"));
}

#[test]
fn aliases_stand_for_their_items_wherever_they_are_written() {
    let file = "OPS ALL=(BOSS) POWER\nUser_Alias OPS = alice, LATER : SOLE = dan\nUser_Alias LATER = bob\n\
        Runas_Alias BOSS = root\nCmnd_Alias POWER = /bin/ls, ALL\nSOLE HERE=/bin/x\nHost_Alias HERE = web1";
    assert_eq!(shown(file), ["alice f:1 all", "bob f:1 all", "dan f:6"]);
}

#[test]
fn an_alias_of_one_kind_is_none_of_another() {
    for file in [
        "Host_Alias WEB = web1\nUser_Alias WEB = alice\nWEB WEB=(ALL) NOPASSWD: ALL",
        "User_Alias WEB = alice\nHost_Alias WEB = web1\nWEB WEB=(ALL) NOPASSWD: ALL",
        "User_Alias WEB = alice\nRunas_Alias WEB = root\nWEB ALL=(WEB) NOPASSWD: ALL",
        "User_Alias WEB = \"alice\"\nCmnd_Alias WEB = ALL\nWEB ALL=NOPASSWD: WEB",
    ] {
        assert_eq!(shown(file), ["alice f:3 all free"], "{file}");
    }
    assert_eq!(shown("Runas_Alias OPS = root\nOPS ALL=ALL"), ["OPS f:2 all"]);
}

/// All but the netgroup were asked of sudo 1.9.13.
#[test]
fn the_superuser_may_be_meant_by_any_of_its_names() {
    for runas in [
        "toor",
        "ROOT",
        "\"root\"",
        "#00",
        "%wheel",
        "%#010",
        "ALL, !root",
        "www, Toor",
        "+admins",
        ":root",
        "www : #0",
        ":disk",
        "www : Disk",
        ":#006",
    ] {
        assert_eq!(shown(&format!("alice ALL=({runas}) ALL")), ["alice f:1 all"], "{runas}");
    }
    for runas in ["www", "%ops", "#10", "%#100", "", ":wheel", ":#10", "!root"] {
        assert_eq!(shown(&format!("alice ALL=({runas}) ALL")), [] as [&str; 0], "{runas}");
    }
}

#[test]
fn whoever_gives_their_own_password_where_others_give_another_is_listed() {
    let suse = "Defaults targetpw\nALL ALL=(ALL) ALL\n";
    assert_eq!(shown(suse), [] as [&str; 0]);
    for own in ["Defaults:%ops !targetpw", "Defaults: %ops env_reset, !targetpw"] {
        let all = ["%ops f:2 all", "%ops f:4 all"];
        assert_eq!(shown(&format!("{suse}{own}\n%ops ALL=(ALL) ALL")), all, "{own}");
    }
    // The user may be a member of the group.
    assert_eq!(shown("Defaults rootpw\nDefaults:%ops !rootpw\nalice ALL=ALL"), ["alice f:3 all"]);
    let alias = "User_Alias OPS = alice, bob\nDefaults:OPS !rootpw\nDefaults rootpw\nALL ALL=ALL";
    assert_eq!(shown(alias), ["alice f:4 all", "bob f:4 all"]);
    // The password is that of whom the rule means by default.
    assert_eq!(shown("Defaults runaspw\nalice ALL=ALL"), [] as [&str; 0]);
    assert_eq!(shown("Defaults runaspw, runas_default=bob\nalice ALL=(ALL) ALL"), ["alice f:2 all"]);
}

#[test]
fn settings_say_whose_password_is_asked_and_whether() {
    assert_eq!(shown("Defaults env_reset, !authenticate\nalice ALL=ALL"), ["alice f:2 all free"]);
    assert_eq!(shown("Defaults !authenticate\nalice ALL=PASSWD: ALL"), ["alice f:2 all"]);
    // Whoever knows the password of the superuser is it already.
    assert_eq!(shown("Defaults targetpw\nALL ALL=(ALL) ALL\nbob ALL=NOPASSWD: ALL"), ["bob f:3 all free"]);
    assert_eq!(shown("Defaults secure_path=\"/bin:/sbin, x\"\nalice ALL=ALL"), ["alice f:2 all"]);
}

#[test]
fn the_last_rule_that_matches_says_whether_a_password_is_asked() {
    for (first, last) in
        [("", ""), ("(root)", ""), ("(ALL)", "(ALL)"), ("(root)", "(ALL)"), ("(ALL:ALL)", "(ALL : ALL)")]
    {
        let file = format!("alice ALL={first} NOPASSWD: ALL\nalice web1={last} ALL");
        assert_eq!(shown(&file), ["alice f:1 all", "alice f:2 all"], "{file}");
    }
}

/// Each but the last was asked of sudo 1.9.13, which still ran a command without a password. No option is looked into, so the last
/// counts as the others.
#[test]
fn a_rule_that_need_not_match_takes_no_password_back() {
    for last in [
        "alice ALL=(ALL) NOTAFTER=20200101000000Z ALL",
        "alice ALL=(ALL) NOTBEFORE=20990101000000Z ALL",
        "alice ALL=(ALL) NOTAFTER=20200101000000Z /bin/ls, ALL",
        "alice ALL=(:root) ALL",
        "alice ALL=(ALL, !root) ALL",
        "alice web1.other.example=(ALL) ALL",
        "alice ALL=(ALL) sha224:0gjh== ALL",
        "alice ALL=(toor) ALL",
        "alice ALL=(root) ALL",
        "alice ALL=(ALL) CHROOT=/srv ALL",
    ] {
        let file = format!("alice ALL=(ALL) NOPASSWD: ALL\n{last}");
        assert_eq!(shown(&file), ["alice f:1 all free", "alice f:2 all"], "{file}");
    }
}

#[test]
fn grants_of_many_rules_with_many_users_are_bounded() {
    let users: Vec<String> = (0..9_000).map(|number| format!("u{number}")).collect();
    let file = format!("User_Alias MANY = {}\n{}", users.join(","), "MANY ALL=NOPASSWD: ALL\n".repeat(5));
    let (grants, untold) = read(&file);
    assert_eq!((grants.len(), untold.as_deref()), (20_000, Some("f:4: more than 20000 users of all rules")));
}

#[test]
fn what_has_no_sound_reading_is_named_with_its_line() {
    for (file, line) in [
        ("alice", "f:1"),
        ("alice ALL=ALL\nbob ALL", "f:2"),
        ("ALL, !alice ALL=ALL", "f:1"),
        ("alice 10.0.0.0/8=ALL", "f:1"),
        ("alice ALL, !web1=ALL", "f:1"),
        ("alice ALL=!ALL", "f:1"),
        ("alice ALL=(root ALL", "f:1"),
        ("alice ALL=^/bin/.*$", "f:1"),
        ("alice ALL=sha224 : 0gjh== ^/bin/.*$", "f:1"),
        ("Cmnd_Alias C = ^/bin/.*$\nalice ALL=C", "f:2"),
        ("alice ALL=/bin/ls ^a{1,2}$", "f:1"),
        ("alice ALL=(www) !/bin/ls ^a, PASSWD: b$, (root) ALL", "f:1"),
        ("Defaults:alice !authenticate", "f:1"),
        ("Defaults:bob, alice !authenticate", "f:1"),
        ("Defaults!sha224:0gjh== /bin/ls !authenticate", "f:1"),
        ("Defaults@web1 !targetpw", "f:1"),
        ("Defaults>root !rootpw", "f:1"),
        ("Defaults!/bin/ls !runaspw", "f:1"),
        ("Defaults:alice rootpw", "f:1"),
        ("Defaults:ALL, !alice !rootpw", "f:1"),
        ("Defaults:\\x61lice !rootpw", "f:1"),
        ("\\x61lice ALL=ALL", "f:1"),
        ("alice ALL=(\\x72oot) ALL", "f:1"),
        ("alice ALL=(%:ops) ALL", "f:1"),
        ("alice ALL=(a b) ALL", "f:1"),
        ("User_Alias A = \\x61lice", "f:1"),
        ("User_Alias A = alice bob", "f:1"),
        ("User_Alias A = alice\nUser_Alias A = bob", "f:2"),
        ("Defaults exempt_group=wheel", "f:1"),
        ("User_Alias A = B\nUser_Alias B = A\nA ALL=ALL", "f:3"),
    ] {
        let (_, untold) = read(file);
        assert!(untold.as_ref().is_some_and(|why| why.starts_with(&format!("{line}: "))), "{file}: {untold:?}");
    }
}

#[test]
fn a_hash_names_a_user_id_before_a_digit_and_a_comment_elsewhere() {
    assert_eq!(without_comment("#1000 ALL=ALL"), "#1000 ALL=ALL");
    assert_eq!(without_comment("alice ALL=(#0) ALL # yes"), "alice ALL=(#0) ALL ");
    assert_eq!(without_comment("alice ALL=\"/a#b\" #c"), "alice ALL=\"/a#b\" ");
    assert_eq!(without_comment("# 1"), "");
}

#[test]
fn included_files_are_read_from_where_they_are_named() {
    assert_eq!(included("sudoers.d", Path::new("/etc/sudoers")), Some(PathBuf::from("/etc/sudoers.d")));
    assert_eq!(included("/opt/x", Path::new("/etc/sudoers")), Some(PathBuf::from("/opt/x")));
    assert_eq!(included("/etc/sudoers.%h", Path::new("/etc/sudoers")), None);
    assert!(matches!(directive("#includedir /etc/sudoers.d"), Some(Include::Folder(path)) if path == "/etc/sudoers.d"));
    assert!(matches!(directive("@include \"a b\""), Some(Include::File(path)) if path == "a b"));
    assert!(directive("#1000 ALL=ALL").is_none() && directive("# include x").is_none());
}

/// Asked of sudo 1.9.13.
#[test]
fn the_name_of_an_include_ends_at_a_blank_and_a_comment_may_follow() {
    for (line, expected) in [
        ("@includedir /etc/sudoers.d # local rules", "/etc/sudoers.d/"),
        ("#includedir\t/etc/sudoers.d\t#local", "/etc/sudoers.d/"),
        ("@include /etc/a\\ b # x", "/etc/a b"),
        ("  @include \"/etc/a b\"# x", "/etc/a b"),
        ("@include\"/etc/a\"", "/etc/a"),
        ("@include /etc/a b", "odd"),
        ("@include /etc/a#b", "odd"),
        ("@include /etc/\"a\"", "odd"),
        ("@include \"/etc/a\\ b\"", "odd"),
        ("@include \"/etc/a", "odd"),
        ("@include", "odd"),
        ("@includes", "odd"),
        ("#include # x", "odd"),
        ("#include", ""),
        ("#includes all", ""),
        ("#include\"/etc/a\"", ""),
    ] {
        let found = match directive(line) {
            Some(Include::File(name)) => name,
            Some(Include::Folder(name)) => format!("{name}/"),
            Some(Include::Odd) => "odd".to_owned(),
            None => String::new(),
        };
        assert_eq!(found, expected, "{line}");
    }
}

/// Asked of sudo 1.9.13.
#[test]
fn a_backslash_in_a_comment_continues_nothing() {
    for (file, expected) in [
        ("alice ALL=(ALL) ALL # x \\\nbob ALL=ALL", &["alice f:1 all", "bob f:2 all"][..]),
        ("# x \\\nbob ALL=ALL", &["bob f:2 all"]),
        ("alice ALL=\\\n(ALL) ALL #\\\\\\\nbob ALL=ALL", &["alice f:1 all", "bob f:3 all"]),
        ("#1000 ALL=(ALL) \\\nALL", &["#1000 f:1 all"]),
        ("Defaults passprompt=\"a \\\n# b \\\n\"\nbob ALL=ALL", &["bob f:4 all"]),
    ] {
        assert_eq!(shown(file), expected, "{file}");
    }
    for (file, expected) in [
        ("#include \\\n/etc/a", &["#include /etc/a"][..]),
        ("@include /etc/a # \\\nbob ALL=ALL", &["@include /etc/a # \\", "bob ALL=ALL"]),
    ] {
        let lines: Vec<String> = logical_lines(file).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, expected, "{file}");
    }
}

#[test]
fn files_of_a_folder_are_read_in_order_and_a_missing_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("capture");
    let host = host::Live::new();
    host::Recording::start(&host, &capture, Timestamp::EPOCH).unwrap().finish().unwrap();
    let etc = capture.join("files/etc");
    std::fs::create_dir_all(etc.join("sudoers.d")).unwrap();
    std::fs::write(etc.join("sudoers"), "@includedir /etc/sudoers.d\n").unwrap();
    for (name, text) in [("20-b", "bob ALL=ALL"), ("10-a", "alice ALL=ALL"), ("x.bak", "eve ALL=ALL")] {
        std::fs::write(etc.join("sudoers.d").join(name), text).unwrap();
    }
    let mut recorded = host::Recorded::at(&capture).unwrap();
    let path = |path: &str| muster_proto::fact::PathText::from_bytes(path.as_bytes());
    let names = ["10-a", "20-b", "30-gone", "x.bak"].map(path).to_vec();
    let index = recorded.index_mut();
    index.lists.insert(path("/etc/sudoers.d"), names);
    index.metadata.insert(path("/etc/sudoers"), host.metadata(&etc.join("sudoers")).unwrap());
    let mut sudoers = Sudoers::look(&recorded, MAINS[0], "web1");
    let who: Vec<String> =
        grants(&mut sudoers, &Superusers::default(), "web1").into_iter().map(|grant| grant.who).collect();
    assert_eq!(who, ["alice", "bob"]);
    assert!(sudoers.untold.unwrap().detail.as_str().starts_with("read /etc/sudoers.d/30-gone"));
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(text in "[A-Zab #!,:=()\\\\\"%+\n_0-9^]{0,200}", any in "\\PC*") {
        for file in [text, any] {
            let _ = read(&file);
            let _ = without_comment(&file);
            let _ = directive(&format!("@include {file}"));
            let _ = read(&format!("Defaults:{file}\nDefaults!{file}\nUser_Alias A={file}"));
        }
    }

    /// Whoever is written into a plain rule is found, whatever stands around it.
    #[test]
    fn a_plain_rule_is_found_among_others(
        user in "[a-z]{1,8}", spaces in "[ \t]{1,3}", tag in prop_oneof![Just(""), Just("NOPASSWD: "), Just("NOPASSWD:SETENV:")],
        noise in proptest::collection::vec("# [a-z =]{0,20}", 0..4),
    ) {
        let file = format!("{}\n{user}{spaces}ALL{spaces}={spaces}(ALL:ALL){spaces}{tag}ALL\n", noise.join("\n"));
        let (grants, untold) = read(&file);
        prop_assert_eq!(untold, None);
        prop_assert_eq!(grants.len(), 1);
        prop_assert_eq!((&grants[0].who, grants[0].all_commands, grants[0].no_password), (&user, true, !tag.is_empty()));
    }
}
