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
