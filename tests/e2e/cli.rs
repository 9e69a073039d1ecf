//! What the three programs say to who uses them wrongly, and to programs that use them.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use muster_tests::harness::{Folder, collector::Collector, program};

/// Runs `command` without any setting of this machine's user.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        command.env("XDG_CONFIG_HOME", "/nonexistent").env("MUSTER_DATA", "/nonexistent").output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_settings_end_with_2_and_name_file_and_line() {
    let folder = Folder::new();
    let file = folder.join("settings.toml");
    fs::write(&file, "# A comment.\nnone_of_the_keys = 1\n").unwrap();
    for name in ["test-agent", "test-collector"] {
        let check =
            |form: &str| run(Command::new(program(name)).args(["check-config", "-o", form, "--config"]).arg(&file));
        let (code, out, said) = check("text");
        assert_eq!((code, out.as_str()), (Some(2), ""), "{name}: {said}");
        assert!(said.contains(&format!("{}:2: ", file.display())), "{name}: {said}");
        let (code, out, _) = check("json");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &told["valid"]), (Some(2), &serde_json::json!(false)), "{name}: {out}");
        assert!(told["error"].as_str().unwrap().contains("none_of_the_keys"), "{name}: {out}");
    }
}

#[test]
fn right_settings_are_shown_to_programs() {
    let folder = Folder::new();
    let file = folder.join("settings.toml");
    fs::write(&file, "jitter = 0.25\n").unwrap();
    let (code, out, said) =
        run(Command::new(program("test-agent")).args(["check-config", "-o", "json", "--config"]).arg(&file));
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["settings"]["jitter"]), (Some(0), &serde_json::json!(0.25)), "{out}{said}");
}

#[test]
fn a_client_that_is_told_nonsense_ends_with_2() {
    let folder = Folder::new();
    let config = folder.join("muster");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("musterctl.toml"), "output = \"text\"\ncolector = \"https://c1:7443\"\n").unwrap();
    let mut command = Command::new(program("test-musterctl"));
    let output = command.arg("fleet").env("XDG_CONFIG_HOME", folder.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("musterctl.toml:2: ") && said.contains("`colector`") && !said.contains("\\x0a"), "{said}");

    for address in ["c1:7443", "http://c1:7443", "https://c1:port"] {
        let (code, _, said) = run(Command::new(program("test-musterctl")).args([
            "fleet",
            "--credential",
            "/nonexistent",
            "--collector",
            address,
        ]));
        assert_eq!(code, Some(2), "{address}: {said}");
        assert!(said.contains("https://HOST:PORT"), "{address}: {said}");
    }
}

#[test]
fn an_operators_controls_are_tried_without_a_collector() {
    let folder = Folder::new();
    let file = folder.join("controls.toml");
    let path = file.display().to_string();
    let musterctl = |args: &[&str]| run(Command::new(program("test-musterctl")).args(args));

    let (code, out, said) = musterctl(&["controls", "test"]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("\nSOUND  built-in controls: "), "{out}");

    let (code, example, said) = musterctl(&["controls", "test", "--example"]);
    assert_eq!(code, Some(0), "{said}");
    fs::write(&file, &example).unwrap();
    let (code, out, said) = musterctl(&["controls", "test", &path, "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["sound"]), (Some(0), &serde_json::json!(true)), "{out}{said}");

    // What is wrong is named with its control and what to do, and is the answer: not a wrong use of the command.
    fs::write(&file, example.replace("software.packages.exists", "software.pakages.exists")).unwrap();
    let (code, out, said) = musterctl(&["controls", "test", &path]);
    assert_eq!((code, said.as_str()), (Some(1), ""), "{out}");
    assert!(out.contains("control ACME-01: expression reads `software.pakages`"), "{out}");
    assert!(out.contains("software has: packages"), "{out}");

    let (code, out, said) = musterctl(&["controls", "test", &folder.join("none.toml").display().to_string()]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains("cannot read ") && said.contains("none.toml"), "{said}");

    // What could not be asked must not look like an answer.
    for unanswered in
        [&["verify", "/nonexistent.zip"][..], &["findings", "list", "--exit-code", "--credential", "/nonexistent"]]
    {
        let (code, out, said) = musterctl(unanswered);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
    }
    let (code, _, said) = musterctl(&["verify", "/nonexistent.zip", "--log-key", "c1+00000000+AAAA"]);
    assert!(code == Some(2) && said.contains("musterctl log checkpoint"), "{said}");

    // What a provider states is written for that file; the document itself stays here.
    let document = folder.join("contract.pdf");
    fs::write(&document, "the storage is encrypted").unwrap();
    let document = document.display().to_string();
    let host = "0123456789abcdef0123456789abcdef";
    let stated = |until: &str| {
        musterctl(
            &[
                &[
                    "controls",
                    "statement",
                    "--provider",
                    "Example Cloud",
                    "--reference",
                    "contract 7",
                    "--document",
                    &document,
                ],
                &["--host", host, "--from", "2026-01-01T00:00:00Z", "--until", until][..],
            ]
            .concat(),
        )
    };
    let (code, statement, said) = stated("2027-01-01T00:00:00Z");
    assert_eq!(code, Some(0), "{said}");
    assert!(statement.contains(host) && !statement.contains("the storage is encrypted"), "{statement}");
    fs::write(&file, example + "\n" + &statement).unwrap();
    let (code, out, said) = musterctl(&["controls", "test", &path]);
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(out.contains("Example Cloud states disk_encryption of 1 host from 2026-01-01T00:00:00Z"), "{out}");
    let (code, _, said) = stated("2029-01-01T00:00:00Z");
    assert!(code == Some(2) && said.contains("more than 400 days"), "{said}");

    let (code, out, _) = musterctl(&["controls", "fields", "firewall."]);
    assert!(code == Some(0) && out.contains("firewall.inbound_ipv4"), "{out}");
    assert_eq!(musterctl(&["controls", "fields", "no_such"]).0, Some(1));
}

#[test]
fn a_framework_is_reported_on_alike_by_the_collector_and_without_one() {
    let collector = Collector::started();
    let (code, out, said) = run(Command::new(program("test-musterctl")).args([
        "controls",
        "coverage",
        "--built-in",
        "--framework",
        "soc2",
        "-o",
        "json",
    ]));
    assert_eq!(code, Some(0), "{said}");
    let here: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(collector.ctl().json(&["controls", "coverage", "--framework", "soc2"]), here);
    assert_eq!(here["frameworks"][0]["counts"]["listed"], 61);

    let rows = collector.ctl().text(&["controls", "coverage", "--framework", "soc2", "-o", "csv"]);
    assert!(rows.contains("\"soc2\",\"CC1.1\",\"not addressed by endpoint evidence\""), "{rows}");
    let wrong = |args: &[&str]| {
        let output = collector.ctl().run(args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = wrong(&["controls", "coverage", "--framework", "soc3"]);
    assert!(code == Some(2) && said.contains("name one of: cis_v8"), "{said}");
    let (code, said) = wrong(&["hosts", "list", "-o", "csv"]);
    assert!(code == Some(2) && said.contains("text or json"), "{said}");
}

#[test]
fn a_token_is_made_for_other_hosts_and_revoked() {
    let collector = Collector::started();
    let folder = Folder::new();
    let create = |name: &str, more: &[&str]| {
        let file = folder.join(name);
        let path = file.display().to_string();
        let args = [&["token", "create", "-o", "json", "--enroll-file", &path], more].concat();
        let output = collector.ctl().run(&args);
        (
            output.status.code(),
            file,
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };

    let (code, file, out, said) = create("here.toml", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("--agent-collector"), "nothing warns that other hosts cannot use it: {said}");
    assert_eq!(mode(&file), 0o600);
    let made: serde_json::Value = serde_json::from_str(&out).unwrap();

    let (code, file, _, said) = create("there.toml", &["--agent-collector", "https://c1.example.com:7443"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    assert!(fs::read_to_string(file).unwrap().contains("collector = \"https://c1.example.com:7443\"\n"));

    let (code, file, _, said) = create("nowhere.toml", &["--agent-collector", "https://0.0.0.0:7443"]);
    assert_eq!((code, file.exists()), (Some(2), false), "{said}");

    let id = made["token"]["id"].as_str().unwrap();
    let revoked = collector.ctl().json(&["token", "revoke", id]);
    assert_eq!(revoked["id"], id);
    assert!(revoked["revoke_time"].is_string(), "{revoked}");
}

#[test]
fn a_credential_that_everybody_may_read_is_warned_of() {
    let collector = Collector::started();
    let open = collector.folder().join("open.pem");
    fs::copy(collector.data().join("admin.pem"), &open).unwrap();
    for (mode, warns) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        let output = collector.ctl_with(&open).run(&["fleet"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("chmod 600"), warns, "{mode:o}: {said}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
