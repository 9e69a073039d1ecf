//! Tests of conditions, catalogues and judgements.

use muster_proto::fact::{Fact, Reading, Subject};

use super::{fixture::Fixture, *};

fn fixtures_of(control: &Control) -> impl Iterator<Item = &Fixture> {
    fixture::built_in().iter().filter(|fixture| fixture.control == control.id.as_str())
}

#[test]
fn every_control_gives_what_its_fixtures_expect() {
    let catalogue = Catalogue::built_in();
    assert!(catalogue.controls().len() >= 15);
    for control in catalogue.controls() {
        let fixtures: Vec<&Fixture> = fixtures_of(control).collect();
        if let Err(error) = fixture::check(control, fixtures.iter().copied()) {
            panic!("{error}");
        }
    }
    for fixture in fixture::built_in() {
        assert!(catalogue.control(&fixture.control).is_some(), "no control {}", fixture.control);
    }
}

#[test]
fn what_depends_on_the_class_of_the_host_is_known() {
    let catalogue = Catalogue::built_in();
    // By a parameter, by what it applies to, by how far ahead is looked; and not at all.
    for (id, expected) in [("FWL-02", true), ("ENC-03", true), ("PAT-04", true), ("FWL-01", false), ("ACC-04", false)] {
        assert_eq!(catalogue.control(id).unwrap().reads_class, expected, "{id}");
    }
}

/// Calls `see` with `json` changed in one place for each reading in it: a place whose value may be `{"unknown": …}`.
fn with_each_reading_untold(fact: &Fact, mut see: impl FnMut(String, Fact)) {
    let json = serde_json::to_value(fact).unwrap();
    let mut paths = Vec::new();
    collect(&json, String::new(), &mut paths);
    for path in paths {
        let mut changed = json.clone();
        *changed.pointer_mut(&path).unwrap() = serde_json::json!({"unknown": {"cause": "forbidden"}});
        // Where no reading stands, the changed JSON is no fact.
        if let Ok(fact) = serde_json::from_value::<Fact>(changed) {
            see(path, fact);
        }
    }

    fn collect(json: &serde_json::Value, path: String, paths: &mut Vec<String>) {
        paths.push(path.clone());
        match json {
            serde_json::Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| collect(value, format!("{path}/{name}"), paths));
            }
            serde_json::Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, value)| collect(value, format!("{path}/{index}"), paths));
            }
            _ => {}
        }
    }
}

/// Returns the field of a JSON pointer as a condition writes it.
fn field(subject: Subject, pointer: &str) -> String {
    let mut path = subject.as_str().to_owned();
    for part in pointer.split('/').skip(2) {
        if part.parse::<usize>().is_ok() { path.push_str("[]") } else { path.push_str(&format!(".{part}")) }
    }
    path
}

/// Readings that a passing condition reads and does not need, because something else that is known decides.
const NOT_NEEDED: [(&str, &str, &str); 11] = [
    // A volume of the boot allow-list.
    ("ENC-01", "disk_encryption.volumes[].encrypted", "/state/volumes/1/encrypted"),
    // No builds are named; the package decides.
    ("FIM-03", "agent.program_digest", "/state/program_digest"),
    // One mechanism that enforces is enough.
    ("PLT-02", "system.execution_controls_complete", "/state/execution_controls_complete"),
    // One backup is enough.
    ("AVL-02", "backup.complete", "/state/complete"),
    // No rules are assigned; one program that sends is enough.
    ("LOG-01", "logging.audit.rules_digest", "/state/audit/rules_digest"),
    ("LOG-01", "logging.forwarders_complete", "/state/forwarders_complete"),
    // Secure Boot is on, and a TPM is not demanded.
    ("PLT-01", "boot", "/state"),
    ("PLT-01", "boot.firmware", "/state/firmware"),
    ("PLT-01", "boot.tpm", "/state/tpm"),
    // One sensor is enough.
    ("MAL-01", "sensors.complete", "/state/complete"),
    ("MAL-02", "sensors.complete", "/state/complete"),
];

/// The same for what a host lets in: each is read beside something that is known and decides.
fn is_needless_for_access(control: &str, fixture: &str, path: &str) -> bool {
    let field = path.rsplit('.').next().unwrap_or_default();
    match (control, fixture) {
        // The volumes of the sample host are fixed ones.
        ("ENC-03", _) => path == "disk_encryption.volumes[].encrypted",
        // Where there is no server, or no password opens a session, it does not matter whose it would be.
        ("FWL-03", "a server that is switched off") => {
            ["password_suffices", "permit_root_login", "permit_empty_passwords"].contains(&field)
        }
        ("FWL-03", _) => ["enabled", "permit_root_login", "permit_empty_passwords"].contains(&field),
        // Of an account that is used nothing is asked that would close it, and the other way about.
        ("ACC-03", "an account that is used") => {
            ["expired", "authorized_keys", "password_changed_time"].contains(&field)
        }
        ("ACC-03", _) => !["password", "authorized_keys"].contains(&field) && path.starts_with("accounts.accounts[]"),
        // Delegation and a policy of the host are enough each.
        ("ACC-04", "delegated, and nobody has a local password") => {
            ["min_length", "lockout_attempts", "lockout_seconds"].contains(&field)
        }
        ("ACC-04", _) => path == "accounts.accounts[].password",
        _ => false,
    }
}

#[test]
fn a_reading_that_could_not_be_told_never_passes_a_condition_that_reads_it() {
    let catalogue = Catalogue::built_in();
    let mut untold = 0;
    for control in catalogue.controls() {
        for fixture in fixtures_of(control).filter(|fixture| fixture.expect == "pass") {
            let (evidence, now) = fixture.evidence().unwrap();
            for (subject, observed) in &evidence.facts {
                with_each_reading_untold(&observed.fact, |pointer, fact| {
                    let (mut evidence, _) = fixture.evidence().unwrap();
                    let confirmed = evidence.facts[subject].confirmed;
                    evidence.facts.insert(*subject, Observed::new(fact, confirmed));
                    let path = field(*subject, &pointer);
                    let reads = path == subject.as_str() && control.subjects.contains(subject)
                        || control.condition.paths().contains(&path)
                        || control.id.as_str() == "PAT-01"
                            && ["system.os_id", "system.os_version"].contains(&path.as_str());
                    let judged = judge(control, &evidence, now);
                    if !reads {
                        // A class that could not be told may change which limit holds, and nothing else here.
                        let class = path == "system.host_class" || path == "system";
                        assert!(class || judged.verdict == Verdict::Pass, "{} {path}: {judged:?}", control.id);
                        return;
                    }
                    untold += 1;
                    let needless = is_needless_for_access(control.id.as_str(), &fixture.name, &path) || NOT_NEEDED.iter().any(|(id, p, at)| *id == control.id.as_str() && *p == path && pointer == *at)
                        // A second look at a fixture: where no restart is needed, since when is not asked; swap in memory.
                        || fixture.name == "swap in compressed memory" && path == "disk_encryption.swap_areas[].encrypted"
                        || fixture.name == "an update that is not about security may wait"
                            && path == "patch_level.pending[].available_after_time"
                        || fixture.name == "the unencrypted boot volume may be untold" && pointer == "/state/volumes/1/encrypted"
                        || fixture.name == "a sensor without definitions" && path == "sensors.sensors[].definitions_time"
                        // Who reaches an expected service.
                        || control.id.as_str() == "FWL-02"
                            && !["one that packet filters let nobody reach", "the same on loopback"].contains(&fixture.name.as_str())
                            && path == "listeners.listeners[].reachable"
                        // The other one is recent, or this one alone.
                        || control.id.as_str() == "AVL-02"
                            && path == match fixture.name.as_str() {
                                "a job that touched its file" | "a clock two days behind, and a backup of an hour ago" => "backup.clients[].last_success_time",
                                _ => "backup.stamps[].last_success_time",
                            }
                        // Paths that are watched and not required.
                        || control.id.as_str() == "FIM-01"
                            && !["a parent is watched", "an agent without watch sets leaves nothing out"]
                                .contains(&fixture.name.as_str())
                            && ["/state/paths/0/", "/state/paths/3/"].iter().any(|path| pointer.starts_with(path));
                    if needless {
                        assert_eq!(judged.verdict, Verdict::Pass, "{} {path}: {judged:?}", control.id);
                    } else {
                        assert_eq!(
                            judged.verdict,
                            Verdict::Unknown,
                            "{} {} {pointer}: {judged:?}",
                            control.id,
                            fixture.name
                        );
                        assert!(judged.reason.contains("forbidden"), "{} {pointer}: {judged:?}", control.id);
                    }
                });
            }
        }
    }
    assert!(untold > 40, "{untold}");
}

#[test]
fn time_alone_turns_a_verdict_at_the_second_its_limit_passes() {
    let catalogue = Catalogue::built_in();
    let fixture = |control: &str| fixture::built_in().iter().find(|fixture| fixture.control == control).unwrap();
    let day = Duration::from_secs(86_400);
    let (evidence, now) = fixture("PAT-02").evidence().unwrap();
    let control = catalogue.control("PAT-02").unwrap();
    let judged = judge(control, &evidence, now);
    let found = turn(control, &evidence, now, &judged, 30 * day).unwrap();
    // The metadata are valid for six more days; the condition says "later than now".
    assert_eq!(found.at, now.plus(6 * day));
    assert_eq!(found.judgement.verdict, Verdict::Unknown);
    assert_eq!(turn(control, &evidence, now, &judged, day), None);
    let (evidence, now) = fixture("INV-02").evidence().unwrap();
    let control = catalogue.control("INV-02").unwrap();
    let judged = judge(control, &evidence, now);
    let found = turn(control, &evidence, now, &judged, day).unwrap();
    assert_eq!(found.at, now.plus(Duration::from_secs(5 * 3600 + 1)));
    assert_eq!(found.judgement.verdict, Verdict::Fail);
}

#[test]
fn an_observation_holds_until_its_age_reaches_the_limit_and_not_at_it() {
    let catalogue = Catalogue::built_in();
    let control = catalogue.control("ENC-01").unwrap();
    let fixture = fixture::built_in().iter().find(|fixture| fixture.control == "ENC-01").unwrap();
    let (evidence, now) = fixture.evidence().unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(judge(control, &evidence, now.plus(day - Duration::from_secs(1))).verdict, Verdict::Pass);
    assert_eq!(judge(control, &evidence, now.plus(day)).verdict, Verdict::NoData);
    assert_eq!(stale(control, &evidence).unwrap().0, now.plus(day));
}

#[test]
fn reports_that_do_not_add_up_are_unknown_everywhere() {
    let catalogue = Catalogue::built_in();
    let now = Timestamp::from_seconds(1_780_272_000).unwrap();
    let reporting = Reporting { last_received: Some(now), skew_millis: 0 };
    let evidence = Evidence::broken(AgentId::new([1; 16]), reporting, "digest", now);
    for control in catalogue.controls().filter(|control| !control.subjects.is_empty()) {
        let judged = judge(control, &evidence, now);
        assert_eq!(judged.verdict, Verdict::Unknown, "{}: {judged:?}", control.id);
    }
}

#[test]
fn a_host_that_never_reported_has_no_data() {
    let catalogue = Catalogue::built_in();
    let evidence = Evidence {
        host: AgentId::new([1; 16]),
        facts: BTreeMap::new(),
        reporting: Reporting::default(),
        acknowledged: Acknowledged::default(),
    };
    for control in catalogue.controls() {
        let judged = judge(control, &evidence, Timestamp::from_seconds(1_780_272_000).unwrap());
        assert_eq!(judged.verdict, Verdict::NoData, "{}: {judged:?}", control.id);
    }
}

#[test]
fn an_overlay_replaces_the_table_of_support_dates() {
    let (evidence, _) = fixture::built_in().iter().find(|f| f.control == "PAT-01").unwrap().evidence().unwrap();
    let verdict = |overlay: &str, now: &str| {
        let catalogue = Catalogue::with_overlay(overlay).unwrap();
        let evidence = confirmed_at(&evidence, now.parse().unwrap());
        judge(catalogue.control("PAT-01").unwrap(), &evidence, now.parse().unwrap()).verdict
    };
    let table =
        |end: &str| format!("[support]\nas_of = \"2029-01-01T00:00:00Z\"\n[support.end.debian]\n12 = \"{end}\"\n");
    let (late, later) = ("2029-02-01T00:00:00Z", "2030-07-01T00:00:00Z");
    assert_eq!(verdict("", late), Verdict::Unknown, "the built-in table is too old to say");
    assert_eq!(verdict(&table("2030-01-01T00:00:00Z"), late), Verdict::Pass);
    assert_eq!(verdict(&table("2028-07-01T00:00:00Z"), late), Verdict::Fail);
    assert_eq!(verdict(&table("2031-01-01T00:00:00Z"), later), Verdict::Unknown, "it is too old in its turn");
    for overlay in ["[support]\n", "[support]\nas_of = \"today\"\n[support.end]\n", "[support]\nas_off = 1\n"] {
        assert!(matches!(Catalogue::with_overlay(overlay), Err(Error::Text(_))), "{overlay}");
    }
}

/// Returns the same facts, as if all of them had been confirmed at `now`.
fn confirmed_at(evidence: &Evidence, now: Timestamp) -> Evidence {
    let facts = evidence.facts.iter().map(|(subject, observed)| (*subject, Observed::new(observed.fact.clone(), now)));
    let acknowledged = evidence.acknowledged.clone();
    Evidence { host: evidence.host, facts: facts.collect(), reporting: Reporting::default(), acknowledged }
}

#[test]
fn an_overlay_changes_parameters_and_adds_controls() {
    let overlay = r#"
        [parameters.PAT-02]
        max_pending_days = 1
        [[control]]
        id = "ACME-01"
        title = "Two processors"
        statement = "The host has two processors."
        family = "acme"
        condition = "system.processors >= 2"
        severity = "low"
        max_age = { "*" = "24h" }
        remediation = { limit = "3d", hint = "Buy one." }
        limits = "None."
        mappings = { soc2 = ["A1.1"] }
        fixture = [
            { name = "two", expect = "pass" },
            { name = "one", expect = "fail", set = { "system.processors" = 1 } },
            { name = "not told", expect = "unknown", set = { "system.processors" = { unknown = { cause = "absent" } } } },
        ]
    "#;
    let catalogue = Catalogue::with_overlay(overlay).unwrap();
    let plain = Catalogue::built_in();
    assert!(catalogue.control("ACME-01").is_some());
    assert_ne!((catalogue.version(), catalogue.digest()), (plain.version(), plain.digest()));
    let (evidence, now) = fixture::built_in().iter().find(|f| f.control == "PAT-02").unwrap().evidence().unwrap();
    assert_eq!(judge(plain.control("PAT-02").unwrap(), &evidence, now).verdict, Verdict::Pass);
    assert_eq!(judge(catalogue.control("PAT-02").unwrap(), &evidence, now).verdict, Verdict::Fail);
    for (change, error) in [
        (("system.processors >= 2", "system.procesors >= 2"), "reads `system.procesors`"),
        (("system.processors >= 2", "system.processors >= '2'"), "does not fit the facts"),
        (("system.processors >= 2", "system.processors"), "neither true nor false"),
        (("system.processors >= 2", "!has(system.processors) || true"), "has()"),
        (("system.processors >= 2", "1 < 2"), "it reads no fact"),
        (("soc2 =", "soc3 ="), "framework `soc3`"),
        (
            (r#"{ name = "one", expect = "fail", set = { "system.processors" = 1 } },"#, ""),
            "no fixture that expects fail",
        ),
        ((r#""system.processors" = 1"#, r#""system.processors" = 4"#), "fixture \"one\" gives pass"),
        ((r#""system.processors" = 1"#, r#""system.procesors" = 1"#), "fixture \"one\" sets"),
        (("ACME-01", "ENC-01"), "ENC-01 is defined twice"),
        (
            ("max_pending_days = 1", "max_pending_days = 'x'"),
            "PAT-02 must be a whole number from 0 to 4294967295, not \"x\"",
        ),
        (
            ("max_pending_days = 1", "max_pending_days = 14.5"),
            "`max_pending_days` of control PAT-02 must be a whole number",
        ),
        (("max_pending_days = 1", "max_pending_days = -5"), "must be a whole number from 0 to 4294967295, not -5"),
        (("max_pending_days = 1", "max_pending_days = 4294967296"), "must be a whole number"),
        (("max_pending_days = 1", "[parameters.TIM-01]\nmax_skew_millis = -1"), "`max_skew_millis` of control TIM-01"),
        (
            ("max_pending_days = 1", "[parameters.INV-02]\nmax_silence_hours = { \"*\" = 1.5 }"),
            "a table with `*` and classes of hosts, each with a whole number",
        ),
        (
            ("max_pending_days = 1", "[parameters.FWL-02]\nallow = { \"*\" = [22] }"),
            "each with a list, each item a text, not {\"*\":[22]}",
        ),
        (("limits = \"None.\"", "limits = \"None.\"\nparameters = { least = -1 }"), "`least` of control ACME-01"),
        (("A1.1", "A1.9"), "control ACME-01 names `A1.9`, which is not among the identifiers of soc2"),
        (
            (
                "system.processors >= 2",
                "software.packages.all(a, software.packages.all(b, software.packages.all(c, a.name != b.name || c.name != a.name)))",
            ),
            "iterate over one list of facts at a time",
        ),
        (
            ("system.processors >= 2", "software.packages.all(a, software.packages.exists(b, a.name == b.name))"),
            "iterate over one list of facts at a time",
        ),
        (("max_pending_days = 1", "max_pending = 1"), "no parameter `max_pending`"),
        (("[parameters.PAT-02]", "[parameters.PAT-99]"), "no control PAT-99"),
        (("severity = \"low\"", "severity = \"low\"\nsevere = 1"), "not as documented"),
        (("\"24h\"", "\"24 hours\""), "bad max_age"),
    ] {
        let text = Catalogue::with_overlay(&overlay.replace(change.0, change.1)).unwrap_err().to_string();
        assert!(text.contains(error), "{change:?}: {text}");
    }
}

#[test]
fn the_version_of_the_catalogue_changes_with_its_text_alone() {
    assert_eq!(Catalogue::built_in().digest(), Catalogue::with_overlay("\n \n").unwrap().digest());
    assert_eq!(Catalogue::built_in().version(), Catalogue::with_overlay("").unwrap().version());
}

/// Returns evidence with `count` packages.
fn many_packages(count: usize) -> (Evidence, Timestamp) {
    let fixture = fixture::built_in().iter().find(|fixture| fixture.control == "INV-05").unwrap();
    let (mut evidence, now) = fixture.evidence().unwrap();
    let confirmed = evidence.facts[&Subject::Software].confirmed;
    let mut json = serde_json::to_value(&evidence.facts[&Subject::Software].fact).unwrap();
    let packages = json["state"]["packages"].as_array_mut().unwrap();
    let one = packages[0].clone();
    packages.resize(count, one);
    let fact: Fact = serde_json::from_value(json).unwrap();
    evidence.facts.insert(Subject::Software, Observed::new(fact, confirmed));
    (evidence, now)
}

fn catalogue_with(condition: &str) -> Result<Catalogue, Error> {
    Catalogue::with_overlay(&format!(
        r#"
        [[control]]
        id = "ACME-02"
        title = "t"
        statement = "s"
        family = "acme"
        condition = "{condition}"
        severity = "low"
        max_age = {{ "*" = "24h" }}
        remediation = {{ limit = "3d", hint = "h" }}
        limits = "None."
        parameters = {{ names = ["none", "no"] }}
        fixture = [
            {{ name = "as it is", expect = "pass" }},
            {{ name = "other", expect = "fail", set = {{ "software.packages.0.name" = "none" }} }},
            {{ name = "not told", expect = "unknown", set = {{ "software" = {{ unknown = {{ cause = "absent" }} }} }} }},
        ]
        "#
    ))
}

#[test]
fn a_condition_that_would_run_long_on_the_facts_of_a_host_is_not_run_and_says_so() {
    let catalogue = catalogue_with("software.packages.all(p, !(p.name in param.names))").unwrap();
    let control = catalogue.control("ACME-02").unwrap();
    let (evidence, now) = many_packages(10_000);
    assert_eq!(judge(control, &evidence, now).verdict, Verdict::Pass);
    // As costly as a condition may be on a usual host: the same ten thousand times.
    let names = vec!["p.name != 'none'"; 80].join(" && ");
    let catalogue = catalogue_with(&format!("software.packages.all(p, {names})")).unwrap();
    let control = catalogue.control("ACME-02").unwrap();
    let (evidence, now) = many_packages(100_000);
    let judged = judge(control, &evidence, now);
    assert_eq!(judged.verdict, Verdict::Unknown);
    assert!(judged.reason.starts_with("the facts are too many for the condition"), "{}", judged.reason);
}

#[test]
fn a_condition_runs_up_to_the_bound_of_its_steps_and_not_beyond() {
    let names = vec!["p.name != 'none'"; 80].join(" && ");
    let catalogue = catalogue_with(&format!("software.packages.all(p, {names})")).unwrap();
    let control = catalogue.control("ACME-02").unwrap();
    let steps = |items: u64| control.condition.steps(&|path| if path == "software.packages" { items } else { 0 });
    let items = (1..).map(|n| n * 100).take_while(|n| steps(*n) <= cost::STEPS).last().unwrap();
    assert!(steps(items) > cost::STEPS / 10 * 9, "{items}");
    let (evidence, now) = many_packages(items as usize);
    assert_eq!(judge(control, &evidence, now).verdict, Verdict::Pass);
    let (evidence, now) = many_packages(items as usize + 100);
    assert_eq!(judge(control, &evidence, now).verdict, Verdict::Unknown);
}

#[test]
fn only_a_reading_of_a_fact_can_be_asked_for_as_absent() {
    for (condition, error) in [
        ("is_absent('patch_level.no_such') || software.packages.size() > 0", "reads `patch_level.no_such`"),
        ("is_absent('software') || software.packages.size() > 0", "reads `software`"),
        ("is_absent(param.names[0]) || software.packages.size() > 0", "is_absent() with other than a path"),
        ("software.packages.all(p, is_absent('software.packages.name'))", "reads `software.packages.name`"),
    ] {
        let text = catalogue_with(condition).unwrap_err().to_string();
        assert!(text.contains(error), "{condition}: {text}");
    }
}

#[test]
fn a_catalogue_survives_the_log_and_one_that_an_entry_cannot_hold_is_refused() {
    let comment = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    let built_in = Catalogue::built_in();
    let beside = built_in.texts().built_in.len() + built_in.texts().support.len();
    let most = muster_proto::limits::ENTRY_BYTES - 1024 - beside;
    assert!(most > 12 * 1024, "an operator has little place left: {most}");
    let catalogue = Catalogue::with_overlay(&comment(most)).unwrap();
    let entry = v1::LogEntry {
        received_time: Some(Timestamp::EPOCH.to_wire()),
        entry: Some(v1::log_entry::Entry::Catalogue(catalogue.to_entry())),
    };
    assert!(prost::Message::encoded_len(&entry) <= muster_proto::limits::ENTRY_BYTES);
    let again = Catalogue::from_entry(&catalogue.to_entry()).unwrap();
    assert_eq!((again.version(), again.digest()), (catalogue.version(), catalogue.digest()));
    let error = Catalogue::with_overlay(&comment(most + 1)).unwrap_err().to_string();
    assert!(error.contains(&format!("has {} bytes; at most {most} have a place", most + 1)), "{error}");
    for change in [
        |entry: &mut v1::CatalogueVersion| entry.overlay.push(b'x'),
        |entry: &mut v1::CatalogueVersion| entry.built_in.clear(),
        |entry: &mut v1::CatalogueVersion| entry.support[0] = 0xff,
        |entry: &mut v1::CatalogueVersion| entry.digest.clear(),
    ] {
        let mut entry = catalogue.to_entry();
        change(&mut entry);
        assert!(matches!(Catalogue::from_entry(&entry), Err(Error::Entry)));
    }
}

/// A file with statements about the sample host, from January and from July on.
const STATED: &str = r#"
    [[statement]]
    kind = "disk_encryption"
    provider = "Example Cloud"
    reference = "contract 7, section 3"
    document_sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
    hosts = ["07070707070707070707070707070707"]
    from = "2026-01-01T00:00:00Z"
    until = "2026-07-01T00:00:00Z"
    [[statement]]
    kind = "disk_encryption"
    provider = "Example Cloud"
    reference = "contract 7, section 3, as of July"
    document_sha256 = "2222222222222222222222222222222222222222222222222222222222222222"
    hosts = ["07070707070707070707070707070707"]
    from = "2026-07-02T00:00:00Z"
    until = "2027-01-01T00:00:00Z"
"#;

/// Returns the evidence of the sample host with `changes`, as a fixture writes them.
fn host_with(changes: &str) -> (Evidence, Timestamp) {
    let fixture = format!("[[fixture]]\nname = \"a host\"\nexpect = \"pass\"\nset = {{ {changes} }}");
    fixture::parse(&fixture).unwrap()[0].evidence().unwrap()
}

const HIDDEN: &str = r#"{ unknown = { cause = "hidden", detail = "a virtual disk" } }"#;

#[test]
fn a_statement_stands_in_for_hidden_readings_and_for_nothing_else() {
    let (plain, stated) = (Catalogue::built_in(), Catalogue::with_overlay(STATED).unwrap());
    let (plain, stated) = (plain.control("ENC-01").unwrap(), stated.control("ENC-01").unwrap());
    let root = "disk_encryption.volumes.0.encrypted";
    let swap = "disk_encryption.swap_areas.0.encrypted";
    let (hidden, both) = (format!(r#""{root}" = {HIDDEN}"#), format!(r#""{root}" = {HIDDEN}, "{swap}" = {HIDDEN}"#));
    for (changes, without, with, reason) in [
        (hidden.as_str(), Verdict::Unknown, Verdict::Pass, "not by observation: disk_encryption.volumes[/].encrypted"),
        (
            &both,
            Verdict::Unknown,
            Verdict::Pass,
            "disk_encryption.swap_areas[/dev/dm-1].encrypted, disk_encryption.volumes[/]",
        ),
        // What was observed stays: nobody's word makes a volume in clear encrypted.
        (&format!(r#"{hidden}, "{swap}" = false"#), Verdict::Fail, Verdict::Fail, "swap not encrypted"),
        (&format!(r#""{root}" = false"#), Verdict::Fail, Verdict::Fail, "not encrypted: /"),
        // What could not be told for another cause stays, also beside what is hidden.
        (
            &format!(r#""{root}" = {{ unknown = {{ cause = "forbidden" }} }}"#),
            Verdict::Unknown,
            Verdict::Unknown,
            "forbidden",
        ),
        (
            &format!(r#"{hidden}, "{swap}" = {{ unknown = {{ cause = "forbidden" }} }}"#),
            Verdict::Unknown,
            Verdict::Unknown,
            "forbidden",
        ),
        (&format!(r#""disk_encryption" = {HIDDEN}"#), Verdict::Unknown, Verdict::Unknown, "hidden"),
        (r#""disk_encryption.volumes" = []"#, Verdict::Unknown, Verdict::Unknown, "no fixed volume"),
        // What is observed to be encrypted needs no statement, and rests on none.
        (r#""system.processors" = 2"#, Verdict::Pass, Verdict::Pass, ""),
    ] {
        let (evidence, now) = host_with(changes);
        assert_eq!(judge(plain, &evidence, now).verdict, without, "{changes}");
        let judged = judge(stated, &evidence, now);
        assert_eq!(judged.verdict, with, "{changes}: {judged:?}");
        assert!(judged.reason.contains(reason), "{changes}: {judged:?}");
        assert_eq!(
            judged.is_by_statement(),
            with == Verdict::Pass && without != Verdict::Pass,
            "{changes}: {judged:?}"
        );
    }
    let (evidence, now) = host_with(&hidden);
    let reason = judge(stated, &evidence, now).reason;
    let expected =
        format!("by the statement of Example Cloud (contract 7, section 3, sha256:{}, from ", "1".repeat(64));
    assert!(reason.starts_with(&expected), "{reason}");
    // Another host is not meant.
    let other = Evidence { host: AgentId::new([8; 16]), ..evidence };
    assert_eq!(judge(stated, &other, now).verdict, Verdict::Unknown);
}

#[test]
fn a_verdict_turns_at_the_instant_at_which_a_statement_begins_or_ends() {
    let catalogue = Catalogue::with_overlay(STATED).unwrap();
    let control = catalogue.control("ENC-01").unwrap();
    let hidden = || host_with(&format!(r#""disk_encryption.volumes.0.encrypted" = {HIDDEN}"#)).0;
    let year = Duration::from_secs(366 * 86_400);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    for (now, is_pass, turns) in [
        ("2026-06-01T00:00:00Z", true, Some("2026-07-01T00:00:00Z")),
        ("2026-06-30T23:59:59Z", true, Some("2026-07-01T00:00:00Z")),
        ("2026-07-01T00:00:00Z", false, Some("2026-07-02T00:00:00Z")),
        ("2026-07-02T00:00:00Z", true, Some("2027-01-01T00:00:00Z")),
        ("2027-01-01T00:00:00Z", false, None),
    ] {
        let now = at(now);
        let mut evidence = hidden();
        evidence.facts.values_mut().for_each(|observed| observed.confirmed = now);
        let judged = judge(control, &evidence, now);
        assert_eq!(judged.verdict, if is_pass { Verdict::Pass } else { Verdict::Unknown }, "{now}: {judged:?}");
        let found = turn(control, &evidence, now, &judged, year);
        assert_eq!(found.as_ref().map(|turn| turn.at), turns.map(at), "{now}");
        if let Some(turn) = found {
            assert_eq!(turn.judgement.verdict == Verdict::Pass, !is_pass, "{now}");
        }
    }
}

#[test]
fn a_control_takes_only_statements_about_what_it_reads() {
    let takes = r#"family = "acme"
        statements = ["disk_encryption"]"#;
    let overlay = trial::EXAMPLE.replacen("family = \"acme\"", takes, 1);
    let error = Catalogue::with_overlay(&overlay).unwrap_err().to_string();
    assert!(error.contains("ACME-01 has a bad statements: the condition does not read disk_encryption"), "{error}");
    let bad = STATED.replacen("until = \"2026-07-01T00:00:00Z\"", "until = \"2029-07-01T00:00:00Z\"", 1);
    let trials = trial::of_file(&bad);
    assert!(trials.faults[0].what.contains("statement 1 of the file: it ends before"), "{trials:?}");
    assert!(Catalogue::with_overlay(&bad).is_err());
}

#[test]
fn hardware_without_uefi_passes_where_the_operator_says_so() {
    let allowed = Catalogue::with_overlay("[parameters.PLT-01]\nallow_unsupported = true").unwrap();
    let plain = Catalogue::built_in();
    for (firmware, without) in [("bios", Verdict::Unknown), ("other", Verdict::Fail)] {
        let changes = format!("\"system.secure_boot\" = \"unsupported\", \"boot.firmware\" = \"{firmware}\"");
        let (evidence, now) = host_with(&changes);
        let verdict = |catalogue: &Catalogue| judge(catalogue.control("PLT-01").unwrap(), &evidence, now).verdict;
        assert_eq!((verdict(&plain), verdict(&allowed)), (without, Verdict::Pass), "{firmware}");
    }
}

#[test]
fn a_class_that_could_not_be_told_may_be_any_of_them() {
    for class in ["laptop", "desktop", "server", "vm", "container"].map(|class| HostClass::parse(class).unwrap()) {
        // A new class does not compile here before it is listed.
        match class {
            HostClass::Laptop | HostClass::Desktop | HostClass::Server | HostClass::Vm | HostClass::Container => {
                assert!(CLASSES.contains(&class), "{class:?}");
            }
        }
    }
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let classes = BTreeMap::from([(HostClass::Server, hours(6)), (HostClass::Laptop, hours(168))]);
    let by_class = ByClass { default: hours(24), classes };
    let of = |class| *by_class.of(class);
    assert_eq!([of(Some(HostClass::Laptop)), of(Some(HostClass::Vm)), of(None)], [hours(168), hours(24), hours(6)]);
}

#[test]
fn a_requirement_may_have_a_confidence_below_that_of_its_control() {
    let catalogue = Catalogue::built_in();
    let confidence = |control: &str, requirement: &str| {
        let mut mappings = catalogue.control(control).unwrap().mappings.iter();
        mappings.find(|mapping| mapping.requirement == requirement).map(|mapping| mapping.confidence.as_str())
    };
    for (control, requirement, expected) in [
        ("ENC-01", "CC6.1", Some("high")),
        // By one source, and by nobody's word but our own.
        ("ENC-01", "09.o", Some("medium")),
        ("ENC-01", "06.d", Some("low")),
        ("INV-02", "CC7.2", Some("medium")),
        ("LOG-01", "10.3.3", None),
    ] {
        assert_eq!(confidence(control, requirement), expected, "{control} {requirement}");
    }
    let of = |requirement: &str, confidence: &str| {
        let confidence = format!("\nconfidence = \"{confidence}\"\n");
        let overlay = trial::EXAMPLE.replacen("\nconfidence = \"low\"\n", &confidence, 1);
        let start = overlay.find("soc2 = [").unwrap();
        let end = start + overlay[start..].find(']').unwrap() + 1;
        let overlay = format!("{}soc2 = [\"{requirement}\"]{}", &overlay[..start], &overlay[end..]);
        let catalogue = Catalogue::with_overlay(&overlay).map_err(|error| error.to_string())?;
        let mappings = &catalogue.control("ACME-01").unwrap().mappings;
        let mapping = mappings.iter().find(|mapping| mapping.framework == "soc2").unwrap();
        Ok::<_, String>((mapping.requirement.clone(), mapping.confidence.clone()))
    };
    for (requirement, confidence, expected) in
        [("A1.1", "high", "high"), ("A1.1 low", "high", "low"), ("A1.1 high", "low", "low")]
    {
        assert_eq!(of(requirement, confidence), Ok(("A1.1".to_owned(), expected.to_owned())), "{requirement}");
    }
    for requirement in ["A1.1 sure", "A1.1 ", "A1.9 low", "low"] {
        assert!(of(requirement, "high").unwrap_err().contains("not among the identifiers"), "{requirement}");
    }
}

/// Times that no clock of the host gave, and times of files.
const OTHER_TIMES: [&str; 15] = [
    "accounts.accounts[].expires_time",
    "backup.table_time",
    "file_integrity.changes[].after.changed_time",
    "file_integrity.changes[].after.modified_time",
    "file_integrity.changes[].before.changed_time",
    "file_integrity.changes[].before.modified_time",
    "now",
    "patch_level.pending[].available_after_time",
    "patch_level.security_metadata_time",
    "patch_level.security_metadata_valid_until_time",
    "patch_level.sources[].release_time",
    "patch_level.sources[].valid_until_time",
    "sensors.sensors[].definitions_time",
    "sensors.table_time",
    "support.end_time",
];

#[test]
fn whose_clock_gave_a_time_is_decided_for_each() {
    let times: Vec<String> =
        field::all("").into_iter().filter(|field| field.kind == "seconds since 1970").map(|field| field.path).collect();
    let mut decided: Vec<&str> = evidence::HOST_TIMES.into_iter().chain(OTHER_TIMES).collect();
    decided.sort_unstable();
    assert_eq!(times, decided);
    let catalogue = Catalogue::built_in();
    let reads = catalogue.controls().filter(|control| control.reads_host_times).map(|control| control.id.as_str());
    assert_eq!(reads.collect::<Vec<_>>(), ["ACC-03", "AVL-02", "LOG-01", "PAT-02", "PAT-03", "PAT-04"]);
}

#[test]
fn what_a_measured_skew_owes_to_the_network_moves_no_time() {
    for (skew_millis, minutes) in [
        (0, 0),
        (29_999, 0),
        (-29_999, 0),
        (30_000, 1),
        (-30_000, -1),
        (10_800_250, 180),
        (i64::MIN, -153_722_867_280_912),
    ] {
        let reporting = Reporting { last_received: None, skew_millis };
        assert_eq!(reporting.ahead_minutes(), minutes, "{skew_millis}");
    }
}

#[test]
fn builds_settings_and_watch_sets_that_an_operator_names_decide() {
    let agent = sample::healthy().into_iter().find_map(|fact| match fact {
        Fact::Agent(Reading::Known(agent)) => Some(agent),
        _ => None,
    });
    let agent = agent.unwrap();
    let Reading::Known(program) = &agent.program_digest else { panic!("not known") };
    let (settings, other, set) = (&agent.settings_digest, "0".repeat(64), "a".repeat(64));
    for (control, parameters, changes, expected, reason) in [
        ("FIM-03", format!("program_digests = [\"{other}\", \"{program}\"]"), "", Verdict::Pass, ""),
        ("FIM-03", format!("program_digests = [\"{program}\"]"), "agent.matches_package", Verdict::Pass, ""),
        ("FIM-03", format!("program_digests = [\"{other}\"]"), "", Verdict::Fail, "no named build: "),
        ("FIM-03", format!("settings_digests = [\"{settings}\"]"), "", Verdict::Pass, ""),
        ("FIM-03", format!("settings_digests = [\"{other}\"]"), "", Verdict::Fail, "other settings: "),
        ("FIM-01", format!("accepted_sets = [\"{set}\"]"), "file_integrity.paths.1.whole", Verdict::Pass, ""),
        (
            "FIM-01",
            format!("accepted_sets = [\"{other}\"]"),
            "file_integrity.paths.1.whole",
            Verdict::Fail,
            "watched in part",
        ),
    ] {
        let catalogue = Catalogue::with_overlay(&format!("[parameters.{control}]\n{parameters}")).unwrap();
        let change = if changes.is_empty() { String::new() } else { format!("\"{changes}\" = false") };
        let text = format!("[[fixture]]\nname = \"n\"\nexpect = \"pass\"\nset = {{ {change} }}");
        let (evidence, now) = fixture::parse(&text).unwrap()[0].evidence().unwrap();
        let judged = judge(catalogue.control(control).unwrap(), &evidence, now);
        assert_eq!(judged.verdict, expected, "{control} {parameters}: {judged:?}");
        assert!(judged.reason.starts_with(reason), "{control} {parameters}: {judged:?}");
    }
}

#[test]
fn time_alone_makes_a_failure_certain_of_what_was_never_reported_whole() {
    let overlay = r#"
        [[control]]
        id = "ACME-01"
        title = "Recent metadata"
        statement = "The metadata are recent, and there is a processor."
        family = "acme"
        condition = "now - patch_level.security_metadata_time <= 172800 && system.processors > 0"
        severity = "low"
        max_age = { "*" = "7d" }
        remediation = { limit = "3d", hint = "Look." }
        limits = "None."
        fixture = [
            { name = "so", expect = "pass" },
            { name = "old", expect = "fail", now = "2026-06-04T00:00:00Z", age = "2d" },
            { name = "not told", expect = "unknown", set = { "system.processors" = { unknown = { cause = "absent" } } } },
        ]
    "#;
    let catalogue = Catalogue::with_overlay(overlay).unwrap();
    let control = catalogue.control("ACME-01").unwrap();
    let (mut evidence, now) = host_with("");
    evidence.facts.remove(&Subject::System);
    let day = Duration::from_secs(86_400);
    let judged = judge(control, &evidence, now);
    assert_eq!((judged.verdict, judged.reason.as_str()), (Verdict::NoData, "nothing was reported about system"));
    let turn = turn(control, &evidence, now, &judged, day * 3).unwrap();
    assert_eq!((turn.at, turn.judgement.verdict), (now.plus(day).plus(Duration::from_secs(1)), Verdict::Fail));
    assert_eq!(judge(control, &evidence, turn.at), turn.judgement);
    assert_eq!(judge(control, &evidence, now.plus(day * 7)), judged);
}

#[test]
fn no_account_but_root_has_its_user_id_also_if_it_is_approved() {
    let catalogue = Catalogue::with_overlay("[parameters.ACC-02]\nallow = { \"*\" = [\"alice\"] }").unwrap();
    for (name, kind, expected, reason) in [
        ("alice", "group", Verdict::Pass, ""),
        ("alice", "uid_0", Verdict::Fail, "user id 0: alice"),
        ("toor", "uid_0", Verdict::Fail, "user id 0: toor"),
        ("root", "uid_0", Verdict::Pass, ""),
        ("root", "group", Verdict::Fail, "not approved: root by "),
    ] {
        let set =
            format!("\"accounts.administrators.0.name\" = \"{name}\", \"accounts.administrators.0.kind\" = \"{kind}\"");
        let (evidence, now) = host_with(&set);
        let judged = judge(catalogue.control("ACC-02").unwrap(), &evidence, now);
        assert_eq!((judged.verdict, judged.reason.as_str()), (expected, reason), "{name} {kind}");
    }
}

#[test]
fn accepted_watch_sets_cover_no_required_path_of_which_they_name_patterns_alone() {
    let accepted = format!("accepted_sets = [\"{}\"]", "a".repeat(64));
    for (required, patterns_only, whole, expected) in [
        ("/root/scripts", None, "false", Verdict::Fail),
        ("/root", None, "false", Verdict::Fail),
        ("/root/scripts", None, "true", Verdict::Pass),
        ("/root/scripts", None, "{ unknown = { cause = \"failed\" } }", Verdict::Unknown),
        ("/root/scripts", Some("[]"), "false", Verdict::Pass),
        // What patterns leave out of it was accepted with the sets.
        ("/etc/ssh", None, "false", Verdict::Pass),
        ("/srv/root", None, "false", Verdict::Fail),
    ] {
        let patterns_only = patterns_only.map(|paths| format!("patterns_only = {paths}")).unwrap_or_default();
        let overlay = format!("[parameters.FIM-01]\n{accepted}\nrequired = [\"{required}\"]\n{patterns_only}");
        let catalogue = Catalogue::with_overlay(&overlay).unwrap();
        let paths = ["/etc", "/root"].map(|path| format!("{{ path = \"{path}\", entries = 9, whole = {whole} }}"));
        let (evidence, now) = host_with(&format!("\"file_integrity.paths\" = [{}]", paths.join(", ")));
        let judged = judge(catalogue.control("FIM-01").unwrap(), &evidence, now);
        assert_eq!(judged.verdict, expected, "{required} {patterns_only} {whole}: {judged:?}");
        if expected == Verdict::Fail && required.starts_with("/root") {
            assert_eq!(judged.reason, "watched in part, and not accepted so: /root");
        }
    }
}
