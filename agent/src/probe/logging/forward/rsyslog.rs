//! Actions of rsyslog.conf(5) that send to other hosts, in its old form and in RainerScript.
//!
//! An action is done for what its filter lets through. Only what is sent whatever a message says counts as sent: a selector is
//! followed, any other filter is not. What a `stop` under one may keep back is in doubt, unless the filter is certainly for nothing
//! of sign-ins or of the kernel.

mod action;
mod condition;
mod messages;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::Transmission;

use self::{
    action::{action, old, values},
    condition::Chosen,
    messages::{Messages, NEEDED},
    tokens::{Parameters, Token, Tokens},
};
use super::{Sending, own::Own};

/// How the main file takes in the files of the folder.
const FOLDER: &str = "/etc/rsyslog.d/*.conf";
/// What SUSE's rsyslog-service-prepare writes at each start: sockets to listen at.
const SOCKETS: &str = "/run/rsyslog/additional-log-sockets.conf";
/// Modules that take in what the host logs.
const INPUTS: [&str; 2] = ["imjournal", "imuxsock"];
/// The one that reads the kernel's messages where those do not.
const KERNEL_LOG: &str = "imklog";
/// The system's own sockets: the usual one, and that at which systemd-journald hands on.
const SYSTEM_SOCKETS: [&str; 2] = ["/dev/log", "/run/systemd/journal/syslog"];
/// Messages of a burst that a limit of an input lets through, at least, where it leaves the log whole but for floods. That of rsyslog
/// itself is 200, of imjournal 20,000.
const LEAST_BURST: u64 = 200;
const DEFAULT_RULESET: &str = "RSYSLOG_DefaultRuleset";
/// Blocks that stand in one another, at most.
const DEPTH: usize = 100;
/// Conditions that are told apart, at most, and of each so much.
const CONDITIONS: usize = 1_000;
const CONDITION_CHARS: usize = 100;
/// Rulesets that are told apart, at most.
const RULESETS: usize = 100;
/// Returns whether the main file takes in the files of `/etc/rsyslog.d`.
pub(super) fn takes_folder(main: &str) -> bool {
    Evaluation::of(main, "", &Own::default()).takes_folder
}

/// Returns whether nothing but the system's log socket gives what the host itself logs.
pub(super) fn is_of_socket_alone(main: &str, folder: &str) -> bool {
    Evaluation::of(main, folder, &Own::default()).own_inputs() == BTreeSet::from(["imuxsock"])
}

/// Returns what settings in `main` send. `folder` is the text of `/etc/rsyslog.d`, in order of name.
pub(super) fn parse(main: &str, folder: &str, own: &Own) -> Sending {
    Evaluation::of(main, folder, own).sending()
}

/// For what an action is done.
#[derive(Clone, Copy, Debug)]
struct Scope {
    messages: Messages,
    /// A condition that is not followed stands before it.
    is_conditional: bool,
    /// A condition before it names inputs, which may not be all.
    is_by_input: bool,
    /// A condition before it lets through nothing of sign-ins or of the kernel.
    is_of_others: bool,
    /// Place of the last condition before it.
    condition: usize,
    /// Number of its ruleset.
    ruleset: usize,
}

impl Scope {
    fn of_ruleset(ruleset: usize) -> Self {
        Self {
            messages: Messages::ALL,
            is_conditional: false,
            is_by_input: false,
            is_of_others: false,
            condition: 0,
            ruleset,
        }
    }
}

/// What becomes of messages that get to a ruleset.
#[derive(Clone, Debug)]
struct Ruleset {
    name: String,
    /// What nothing has stopped so far.
    left: Messages,
    /// What of it may have been stopped.
    in_doubt: Messages,
    sent: Messages,
    ways: BTreeSet<Transmission>,
    /// What is handed to other rulesets, by their names.
    calls: BTreeMap<String, Messages>,
}

impl Ruleset {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            left: Messages::ALL,
            in_doubt: Messages::NONE,
            sent: Messages::NONE,
            ways: BTreeSet::new(),
            calls: BTreeMap::new(),
        }
    }
}

/// What was read so far.
struct Evaluation<'a> {
    folder: &'a str,
    own: &'a Own,
    takes_folder: bool,
    /// The first is the one for what stands outside of rulesets.
    rulesets: Vec<Ruleset>,
    /// Name of the one that what the host itself logs gets to.
    default: String,
    /// Scope outside of blocks.
    base: Scope,
    blocks: Vec<Scope>,
    /// Scope of the next statement, by a filter before it.
    next: Option<Scope>,
    /// Scope of the last action.
    last: Scope,
    /// Scope of the block of the ruleset that was just named.
    named: Option<Scope>,
    is_tls: bool,
    /// `$ActionExecOnly...` by which actions of the old form are not always done.
    limits: BTreeSet<String>,
    /// Modules that take in what the host logs.
    inputs: BTreeSet<&'static str>,
    /// Whether imuxsock leaves the system's own socket alone.
    omits_system_socket: bool,
    /// Of inputs, in how many seconds they take in how many messages; 0 seconds for no limit.
    bounds: BTreeMap<&'static str, (u64, u64)>,
    /// The kernel's own messages are read beside what the host logs.
    has_kernel_log: bool,
    /// Messages of the host itself have another address than that of the loopback.
    is_named_otherwise: bool,
    /// Inputs that a condition is for which was taken for none.
    named_inputs: Option<BTreeSet<&'static str>>,
    /// Rulesets that inputs of their own are bound to; empty for the default one.
    bound: BTreeSet<String>,
    /// Settings are taken from elsewhere, so that what comes after may be stopped there.
    is_open: bool,
    /// Conditions, shortened; the first stands for those without a text.
    conditions: Vec<String>,
    /// Why what is sent may have been stopped before.
    stopped: Option<String>,
    /// Why of what is in doubt in a ruleset something may have been stopped.
    stop: String,
    doubt: Option<String>,
}

impl<'a> Evaluation<'a> {
    fn of(main: &str, folder: &'a str, own: &'a Own) -> Self {
        let mut evaluation = Self {
            folder,
            own,
            takes_folder: false,
            rulesets: vec![Ruleset::new(DEFAULT_RULESET)],
            default: DEFAULT_RULESET.to_owned(),
            base: Scope::of_ruleset(0),
            blocks: Vec::new(),
            next: None,
            last: Scope::of_ruleset(0),
            named: None,
            is_tls: false,
            limits: BTreeSet::new(),
            inputs: BTreeSet::new(),
            omits_system_socket: false,
            bounds: BTreeMap::new(),
            has_kernel_log: false,
            is_named_otherwise: false,
            named_inputs: None,
            bound: BTreeSet::new(),
            is_open: false,
            conditions: vec!["else".to_owned()],
            stopped: None,
            stop: String::new(),
            doubt: None,
        };
        evaluation.read(main, true);
        evaluation
    }

    /// Returns the inputs by which what the host itself logs gets to the default ruleset.
    fn own_inputs(&self) -> BTreeSet<&'static str> {
        let is_own = |input: &&'static str| *input != "imuxsock" || !self.omits_system_socket;
        let mut inputs: BTreeSet<&'static str> = self.inputs.iter().copied().filter(is_own).collect();
        if self.bound.iter().any(|ruleset| ruleset.is_empty() || *ruleset == self.default) {
            inputs.insert("imuxsock");
        }
        inputs
    }

    fn sending(self) -> Sending {
        let inputs = self.own_inputs();
        let mut needed = inputs.clone();
        needed.extend(Some(KERNEL_LOG).filter(|_| self.has_kernel_log));
        let limited = self.limited(&inputs);
        let is_by_address = self.conditions.iter().any(|text| text.to_ascii_lowercase().contains("fromhost"));
        let by_name: BTreeMap<&str, &Ruleset> =
            self.rulesets.iter().map(|ruleset| (ruleset.name.as_str(), ruleset)).collect();
        let (mut sent, mut ways) = (Messages::NONE, BTreeSet::new());
        if let Some(default) = by_name.get(self.default.as_str()) {
            (sent, ways) = (default.sent, default.ways.clone());
            for (called, messages) in &default.calls {
                if let Some(called) = by_name.get(called.as_str()) {
                    sent = sent.or(called.sent.and(*messages));
                    ways.extend(&called.ways);
                }
            }
        }
        let doubt = if sent != Messages::NONE && inputs.is_empty() {
            Some(format!("no input gives what the host logs to the ruleset that sends: {}", INPUTS.join(", ")))
        } else if sent != Messages::NONE && limited.is_some() {
            limited
        } else if sent != Messages::NONE && self.is_named_otherwise && is_by_address {
            Some(
                "a condition asks which host a message is from, and localHostIPIF gives this one another address"
                    .to_owned(),
            )
        } else if sent != Messages::NONE && self.named_inputs.is_some_and(|named| !needed.is_subset(&named)) {
            Some("an action that sends is done for some of the inputs alone".to_owned())
        } else if sent.are_the_log() {
            return Sending { ways, doubt: None };
        } else if self.stopped.is_some() {
            self.stopped
        } else if sent != Messages::NONE {
            Some(format!("only a part of the log is sent: without some of {}, from info up", NEEDED.join(", ")))
        } else if self.rulesets.iter().any(|ruleset| ruleset.sent != Messages::NONE) {
            Some("an action that sends stands in a ruleset that may be for nothing of this host".to_owned())
        } else {
            self.doubt
        };
        Sending { ways: BTreeSet::new(), doubt }
    }

    fn read(&mut self, text: &str, is_main: bool) {
        // A line that ends with a backslash goes on in the next.
        let text = text.replace("\\\n", "");
        for token in Tokens::new(&text) {
            let named = self.named.take();
            match token {
                Token::Directive(line) => self.directive(line, is_main),
                Token::Selector(selector) => {
                    let current = self.current();
                    self.next = Some(match Messages::parse(selector) {
                        Some(messages) => Scope { messages: current.messages.and(messages), ..current },
                        None => Scope { is_conditional: true, condition: self.condition(selector), ..current },
                    });
                }
                Token::Condition(filter) => {
                    let scope = self.next.unwrap_or(self.current());
                    let is_of_others = scope.is_of_others || condition::is_of_others(filter);
                    let condition = self.condition(filter);
                    self.next = Some(match condition::what_is_chosen(filter) {
                        Some(Chosen::Messages(messages)) => {
                            Scope { messages: scope.messages.and(messages), is_of_others, condition, ..scope }
                        }
                        Some(Chosen::Inputs(named)) => {
                            let before = self.named_inputs.take();
                            self.named_inputs = Some(before.map_or(named.clone(), |before| &before & &named));
                            Scope { condition, is_by_input: true, ..scope }
                        }
                        None => Scope { is_conditional: true, is_of_others, condition, ..scope },
                    });
                }
                Token::Open if self.blocks.len() == DEPTH => {
                    self.doubt = Some(format!("more than {DEPTH} blocks stand in one another"));
                    return;
                }
                Token::Open => {
                    let scope = named.or(self.next.take()).unwrap_or(self.current());
                    self.blocks.push(scope);
                }
                Token::Close => {
                    self.blocks.pop();
                    self.next = None;
                    self.last = self.current();
                }
                Token::And => self.next = Some(self.last),
                Token::Stop => {
                    let scope = self.scope_of_action();
                    self.stop(scope);
                }
                Token::Call(name) => {
                    let scope = self.scope_of_action();
                    self.call(name, scope);
                }
                Token::Old(action) => {
                    let scope = self.scope_of_action();
                    if action.starts_with(":omdiscard:") {
                        self.stop(scope);
                    } else if let Some(way) = old(action, self.is_tls, self.own) {
                        self.send(
                            way,
                            Scope { is_conditional: scope.is_conditional || !self.limits.is_empty(), ..scope },
                        );
                    }
                }
                Token::Object(name, parameters) => self.object(&name, &parameters, is_main),
            }
        }
    }

    /// Takes note of the text of a condition.
    fn condition(&mut self, text: &str) -> usize {
        if text.is_empty() || self.conditions.len() == CONDITIONS {
            return 0;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        self.conditions.push(words.join(" ").chars().take(CONDITION_CHARS).collect());
        self.conditions.len() - 1
    }

    fn stop(&mut self, scope: Scope) {
        let ruleset = &mut self.rulesets[scope.ruleset];
        if !scope.is_conditional && !scope.is_by_input {
            ruleset.left = ruleset.left.without(scope.messages);
        } else if !scope.is_of_others {
            ruleset.in_doubt = ruleset.in_doubt.or(scope.messages);
            self.stop = format!("a stop under a condition: {}", self.conditions[scope.condition]);
        }
    }

    fn call(&mut self, name: &str, scope: Scope) {
        let called = self.rulesets.iter().find(|ruleset| ruleset.name == name && !name.is_empty());
        // What is stopped there goes no further here either.
        let stops = called.is_none_or(|called| {
            called.left != Messages::ALL || called.in_doubt != Messages::NONE || !called.calls.is_empty()
        });
        let sends = called.is_none_or(|called| called.sent != Messages::NONE);
        let ruleset = &mut self.rulesets[scope.ruleset];
        let messages = scope.messages.and(ruleset.left);
        // That of a condition leaves what the ruleset sends in doubt.
        if !scope.is_conditional && !self.is_open {
            if sends && messages.and(ruleset.in_doubt) != Messages::NONE {
                self.stopped.get_or_insert_with(|| self.stop.clone());
            }
            let messages = messages.without(ruleset.in_doubt);
            if let Some(handed) = ruleset.calls.get_mut(name) {
                *handed = handed.or(messages);
            } else if ruleset.calls.len() < RULESETS {
                ruleset.calls.insert(name.to_owned(), messages);
            }
        }
        if stops && !scope.is_of_others {
            ruleset.in_doubt = ruleset.in_doubt.or(messages);
            let name: String = name.chars().take(CONDITION_CHARS).collect();
            self.stop = format!("what is stopped in a ruleset that is called: {name}");
        }
    }

    fn current(&self) -> Scope {
        self.blocks.last().copied().unwrap_or(self.base)
    }

    fn scope_of_action(&mut self) -> Scope {
        let scope = self.next.take().unwrap_or(self.current());
        self.last = scope;
        scope
    }

    fn directive(&mut self, line: &str, is_main: bool) {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match name.to_ascii_lowercase().as_str() {
            "includeconfig" => self.include(value, is_main),
            "ruleset" => self.base = self.ruleset(value),
            "defaultruleset" => self.default = value.to_owned(),
            "actionsendstreamdrivermode" => self.is_tls = value == "1",
            name if name.starts_with("actionexeconly") => {
                self.limits.remove(name);
                if is_limit(value) {
                    self.limits.insert(name.to_owned());
                }
            }
            "modload" => self.module(value),
            "omitlocallogging" => self.omits_system_socket = !value.eq_ignore_ascii_case("off"),
            "systemlogsocketname" => self.omits_system_socket |= !SYSTEM_SOCKETS.contains(&value),
            "addunixlistensocket" | "inputunixlistensocketcreate" if SYSTEM_SOCKETS.contains(&value) => {
                self.bound.insert(String::new());
            }
            "systemlogratelimitinterval" => self.limit("imuxsock", Some(value), None),
            "systemlogratelimitburst" => self.limit("imuxsock", None, Some(value)),
            "imjournalratelimitinterval" => self.limit("imjournal", Some(value), None),
            "imjournalratelimitburst" => self.limit("imjournal", None, Some(value)),
            "localhostipif" => self.is_named_otherwise = true,
            _ => {}
        }
    }

    fn object(&mut self, name: &str, parameters: &Parameters, is_main: bool) {
        let value = |name| values(parameters, name).next();
        if value("config.enabled").is_some_and(|enabled| enabled != "on") {
            self.doubt = Some(format!("config.enabled of {name} is not on"));
            self.named = Some(Scope { is_conditional: true, ..self.current() });
            self.next = None;
            return;
        }
        match name {
            "include" => self.include(value("file").unwrap_or("a text"), is_main),
            // rsyslog takes no second one of the name of its own.
            "ruleset" => {
                let name = value("name").filter(|name| !name.eq_ignore_ascii_case(DEFAULT_RULESET));
                self.named = Some(self.ruleset(name.unwrap_or_default()));
            }
            "action" => {
                let scope = self.scope_of_action();
                let is_limited = parameters.iter().any(|(name, values)| {
                    (name.starts_with("action.execonly") || name == "ratelimit.interval")
                        && values.iter().any(|value| is_limit(value))
                });
                match action(parameters, self.own) {
                    _ if value("type") == Some("omdiscard") => self.stop(scope),
                    Ok(Some(way)) => {
                        self.send(way, Scope { is_conditional: scope.is_conditional || is_limited, ..scope })
                    }
                    Ok(None) => {}
                    Err(kind) => self.doubt = Some(format!("this build does not know where actions of {kind} send to")),
                }
            }
            "module" => {
                self.module(value("load").unwrap_or_default());
                self.omits_system_socket |= value("syssock.use").is_some_and(|on| !on.eq_ignore_ascii_case("on"));
                self.omits_system_socket |= value("syssock.name").is_some_and(|name| !SYSTEM_SOCKETS.contains(&name));
                self.limit("imuxsock", value("syssock.ratelimit.interval"), value("syssock.ratelimit.burst"));
                self.limit("imjournal", value("ratelimit.interval"), value("ratelimit.burst"));
            }
            "global" => self.is_named_otherwise |= value("localhostipif").is_some(),
            "input"
                if value("type") == Some("imuxsock")
                    && value("socket").is_some_and(|at| SYSTEM_SOCKETS.contains(&at)) =>
            {
                self.limit("imuxsock", value("ratelimit.interval"), value("ratelimit.burst"));
                let ruleset = value("ruleset").filter(|name| !name.eq_ignore_ascii_case(DEFAULT_RULESET));
                self.bound.insert(ruleset.unwrap_or_default().to_owned());
            }
            _ => {}
        }
    }

    /// Takes note of how many messages an input takes in, and in how many seconds.
    fn limit(&mut self, input: &'static str, interval: Option<&str>, burst: Option<&str>) {
        let limit = self.bounds.entry(input).or_insert(if input == "imjournal" { (600, 20_000) } else { (0, 200) });
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        *limit = (number(interval).unwrap_or(limit.0), number(burst).unwrap_or(limit.1));
    }

    /// Returns why an input may drop most of what it is given.
    fn limited(&self, inputs: &BTreeSet<&'static str>) -> Option<String> {
        let is_little = |&(interval, burst): &(u64, u64)| interval > 0 && burst < LEAST_BURST.max(interval);
        let (input, (interval, burst)) =
            self.bounds.iter().find(|(input, limit)| inputs.contains(*input) && is_little(limit))?;
        Some(format!("{input} drops what is more than {burst} messages in {interval} s"))
    }

    /// Takes note of a module such as `imuxsock`, `imuxsock.so` or `/usr/lib/rsyslog/imuxsock.so`.
    fn module(&mut self, load: &str) {
        let name = load.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".so").unwrap_or(name);
        self.inputs.extend(INPUTS.iter().find(|input| **input == name));
        self.has_kernel_log |= name == KERNEL_LOG;
    }

    fn include(&mut self, path: &str, is_main: bool) {
        if is_main && path == FOLDER && !self.takes_folder {
            self.takes_folder = true;
            self.read(self.folder, false);
        } else if path != SOCKETS {
            self.is_open = true;
            self.doubt = Some(Sending::elsewhere(path));
        }
    }

    fn send(&mut self, way: Transmission, scope: Scope) {
        // The doubt is that about the settings from elsewhere.
        if self.is_open {
            return;
        }
        if scope.is_conditional {
            self.doubt =
                Some("an action that sends is done under a condition that this build does not follow".to_owned());
            return;
        }
        let ruleset = &mut self.rulesets[scope.ruleset];
        let messages = scope.messages.and(ruleset.left);
        if messages.and(ruleset.in_doubt) != Messages::NONE {
            self.stopped.get_or_insert_with(|| self.stop.clone());
        }
        let messages = messages.without(ruleset.in_doubt);
        if messages != Messages::NONE {
            ruleset.sent = ruleset.sent.or(messages);
            ruleset.ways.insert(way);
        }
    }

    /// Returns the scope of a ruleset that begins or goes on.
    fn ruleset(&mut self, name: &str) -> Scope {
        if let Some(number) = self.rulesets.iter().position(|ruleset| ruleset.name == name) {
            return Scope::of_ruleset(number);
        }
        if self.rulesets.len() == RULESETS {
            self.doubt = Some(format!("there are more than {RULESETS} rulesets"));
            return Scope { is_conditional: true, ..Scope::of_ruleset(0) };
        }
        self.rulesets.push(Ruleset::new(name));
        Scope::of_ruleset(self.rulesets.len() - 1)
    }
}

/// Returns whether the value of an `execOnly...` has an action not done each time.
fn is_limit(value: &str) -> bool {
    !value.eq_ignore_ascii_case("off") && value != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(main: &str, folder: &str) -> Result<Vec<Transmission>, String> {
        let Sending { ways, doubt } = parse(&format!("module(load=\"imuxsock\")\n{main}"), folder, &Own::default());
        doubt.map_or(Ok(ways.into_iter().collect()), Err)
    }

    #[test]
    fn actions_to_other_hosts_are_found_in_both_forms() {
        for (text, expected) in [
            ("*.*;auth,authpriv.none\t-/var/log/syslog\n", vec![]),
            ("*.* @logs.example.com\n", vec![Transmission::SyslogUdp]),
            ("*.* @@(z9)logs.example.com:6514\n", vec![Transmission::SyslogTcp]),
            ("*.* @@localhost-logs.example.com\n", vec![Transmission::SyslogTcp]),
            ("$ActionSendStreamDriverMode 1\n*.* @@logs.example.com\n", vec![Transmission::SyslogTls]),
            ("# *.* @logs.example.com\n", vec![]),
            ("*.* @127.0.0.1:514\n& @@localhost\n", vec![]),
            ("*.* @127.0.0.1:514\n& @@logs\n", vec![Transmission::SyslogTcp]),
            ("*.* :omrelp:logs:2514\n", vec![Transmission::Relp]),
            (
                "action(type=\"omfwd\" target=\"l.example\" port=\"514\" protocol=\"tcp\")\n",
                vec![Transmission::SyslogTcp],
            ),
            (
                "*.* action(Type=\"omfwd\"\n  Target=\"l.example\"\n  StreamDriverMode=\"1\" Protocol=\"tcp\")\n",
                vec![Transmission::SyslogTls],
            ),
            ("action(type=\"omfwd\" target=[\"127.0.0.1\", \"l.example\"])\n", vec![Transmission::SyslogUdp]),
            ("action(type=\"omfwd\" target=\"127.0.0.1\")\n", vec![]),
            ("action(type=\"omfile\" file=\"/var/log/a)b\")\n", vec![]),
            ("#action(type=\"omfwd\" target=\"l.example\")\n", vec![]),
            ("/* not yet\naction(type=\"omfwd\" target=\"l.example\")\n*.* @@l.example\n*/\n", vec![]),
            ("action(type=\"omelasticsearch\" server=\"es\")\n", vec![Transmission::Http]),
            ("action(type=\"omelasticsearch\" server=\"https://es.example:9200\")\n", vec![Transmission::Http]),
            ("action(type=\"omelasticsearch\" server=\"http://localhost:9200\")\n", vec![]),
            ("action(type=\"omelasticsearch\")\naction(type=\"omkafka\" topic=\"x\")\n", vec![]),
            ("module(load=\"omrelp\")\n", vec![]),
            ("$RuleSet r\n*.* /x\n$RuleSet RSYSLOG_DefaultRuleset\n*.* @@l\n", vec![Transmission::SyslogTcp]),
            ("$RuleSet r\n*.* @@l\n$DefaultRuleset r\n", vec![Transmission::SyslogTcp]),
            (
                "ruleset(name=\"r\" queue.type=\"LinkedList\") {\n action(type=\"omfwd\" target=\"l\")\n}\ncall r\n",
                vec![Transmission::SyslogUdp],
            ),
            ("*.* {\n /var/log/x\n @@l\n}\n", vec![Transmission::SyslogTcp]),
        ] {
            assert_eq!(ways(text, ""), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_may_not_be_sent_is_in_doubt() {
        for (text, part) in [
            ("cron.* @@l.example\n", "only a part"),
            ("*.*;auth,authpriv.none @@l.example\n", "only a part"),
            ("*.warn @@l.example\n", "only a part"),
            ("cron.* {\n @@l.example\n}\n", "only a part"),
            ("authpriv.* stop\n*.* @@l.example\n", "only a part"),
            ("if $programname == 'sshd' then @@l.example\n", "condition"),
            ("if $programname == 'sshd' then {\n /var/log/x\n @@l.example\n}\n", "condition"),
            ("if $a == 'b' then {\n stop\n} else {\n @@l.example\n}\n", "condition"),
            (
                ":programname, isequal, \"sshd\" /var/log/sshd.log\n& stop\n*.* @@l\n",
                "condition: :programname, isequal",
            ),
            ("if $syslogfacility-text == \"authpriv\" then {\n /x\n stop }\n*.* @@l\n", "only a part"),
            ("if $syslogseverity <= 4 then @@l\n", "only a part"),
            ("if prifilt(\"auth.*\") then @@l\n", "only a part"),
            ("if $syslogseverity > 4 then @@l else @@l\n", "only a part"),
            ("if $inputname == 'imjournal' then @@l\n", "some of the inputs"),
            ("module(load=\"imklog\")\nif $inputname == 'imuxsock' then @@l\n", "some of the inputs"),
            ("if $inputname == 'imuxsock' then stop\n*.* @@l\n", "$inputname"),
            ("$LocalHostIPIF eth0\nif $fromhost-ip == '127.0.0.1' then @@l\n", "localHostIPIF"),
            ("global(localHostIPIF=\"eth0\")\nif $fromhost-ip != '127.0.0.1' then stop\n*.* @@l\n", "localHostIPIF"),
            ("if $inputname == 'imuxsock' and $msg == 'x' then @@l\n", "condition"),
            ("action(type=\"omfwd\" target=\"l\" ratelimit.interval=\"3600\" ratelimit.burst=\"1\")\n", "condition"),
            (":msg, regex, \".*\" ~\n*.* @@l\n", ":msg, regex"),
            (":msg, contains, \"x\" stop\n*.* @@l\n", "stop"),
            ("if $programname == 'haproxy' then /x\nelse stop\n*.* @@l\n", "condition: else"),
            ("if $programname == 'x' then { if $msg == 'y' then /x\n } else { stop }\n*.* @@l\n", "condition: else"),
            ("mark.* stop\n*.* @@l\n", "condition: mark.*"),
            (":msg, contains, \"x\" :omdiscard:\n*.* @@l\n", ":msg, contains"),
            ("if $msg == 'x' then action(type=\"omdiscard\")\n*.* @@l\n", "$msg == 'x'"),
            ("ruleset(name=\"r\") {\n if $msg == 'x' then stop\n @@l\n}\ncall r\n", "$msg == 'x'"),
            ("ruleset(name=\"r\") {\n @@l\n}\nif $msg == 'x' then stop\ncall r\n", "$msg == 'x'"),
            ("ruleset(name=\"r\") {\n stop\n}\ncall r\n*.* @@l\n", "called: r"),
            ("call r\n*.* @@l\nruleset(name=\"r\") {\n stop\n}\n", "called: r"),
            ("call_indirect $.r;\n*.* @@l\n", "called"),
            (":programname, isequal, \"x\" @@l.example\n", "condition"),
            (":programname, isequal, \"x\" /var/log/x\n& @@l.example\n", "condition"),
            ("$ActionExecOnlyWhenPreviousIsSuspended on\n*.* @@l.example\n", "condition"),
            ("$ActionExecOnlyEveryNthTime 1000\n*.* @@l.example\n", "condition"),
            ("$ActionExecOnlyOnceEveryInterval 3600\n*.* @@l.example\n", "condition"),
            ("action(type=\"omfwd\" target=\"l\" action.execOnlyEveryNthTime=\"1000\")\n", "condition"),
            ("action(type=\"omfwd\" target=\"l\" action.execOnlyOnceEveryInterval=\"3600\")\n", "condition"),
            ("action(type=\"omfwd\" target=\"l\" config.enabled=\"off\")\n", "config.enabled of action"),
            ("ruleset(name=\"r\" config.enabled=\"off\") {\n @@l\n}\ncall r\n", "condition"),
            ("include(file=\"/etc/rsyslog.d/*.conf\" config.enabled=\"off\")\n", "config.enabled of include"),
            ("ruleset(name=\"r\") {\n action(type=\"omfwd\" target=\"l\")\n}\n", "ruleset"),
            ("$RuleSet r\n*.* @@l.example\n", "ruleset"),
            ("ruleset(name=\"RSYSLOG_DefaultRuleset\") {\n @@l.example\n}\n", "ruleset"),
            ("ruleset(name=\"r\") {\n @@l.example\n}\nruleset(name=\"s\") {\n call r\n}\n", "ruleset"),
            ("ruleset(name=\"r\") {\n @@l.example\n}\ncron.* call r\n", "only a part"),
            ("ruleset(name=\"r\") {\n @@l.example\n}\nif $msg == 'x' then call r\n", "ruleset"),
            ("*.* @@l.example\n$DefaultRuleset r\n", "ruleset"),
            ("action(type=\"omprog\" binary=\"/x\")\n", "omprog"),
        ] {
            let doubt = ways(text, "").unwrap_err();
            assert!(doubt.contains(part), "{text}: {doubt}");
        }
    }

    #[test]
    fn selectors_and_conditions_beside_do_not_hide_what_is_sent() {
        for text in [
            "*.*;mail.none;cron.none @@l.example\n",
            "*.info @@l.example\n",
            "*.* -/var/log/syslog\n*.* @@l.example\n",
            "*.info;authpriv.none @@l.example\nauthpriv.* @@l.example\n",
            "*.* @@l.example\n:msg, contains, \"x\" stop\n",
            "mail.* {\n if $msg contains 'x' then stop\n}\n*.* @@l.example\n",
            ":programname, startswith, \"haproxy\" {\n /var/log/haproxy.log\n stop\n}\n*.* @@l.example\n",
            "if $programname == 'haproxy' then { if $msg contains 'x' then stop }\n*.* @@l.example\n",
            "ruleset(name=\"r\") {\n /x\n}\ncall r\n*.* @@l.example\n",
            ":msg,contains,\"[UFW \" /var/log/ufw.log\n# & stop\n*.* @@l.example\n",
            ":syslogtag, isequal, \"[CLOUDINIT]\" /var/log/cloud-init.log\n& stop\n*.* @@l.example\n",
            "if $programname == 'then' then {\n stop\n}\n*.* @@l.example\n",
            "ruleset(name=\"r\") { /var/log/x\n stop\n}\n*.* @@l.example\n",
            "template(name=\"t\" type=\"list\") { property(name=\"msg\") constant(value=\"\\n\") }\n*.* @@l.example;t\n",
            "*.* \\\n @@l.example\n",
            "if $syslogseverity <= 6 then @@l.example\n",
            "if ($syslogseverity-text != \"debug\") then @@l.example\n",
            "if prifilt(\"*.info\") then { /x\n @@l.example\n}\n",
            "if $syslogseverity >= 7 then stop\n*.* @@l.example\n",
            "if $fromhost-ip == '127.0.0.1' then @@l.example\n",
            // What Red Hat's role for logging writes.
            "ruleset(name=\"f\") { @@l.example\n}\nif ($inputname == \"imuxsock\") then {\n call f\n}\n",
            "if ($inputname == 'imjournal' or $inputname == 'imuxsock') then { @@l.example\n}\n",
            "module(load=\"imklog\")\nif $inputname == ['imuxsock', 'imklog'] then @@l.example\n",
            "$LocalHostIPIF eth0\n*.* @@l.example\n",
        ] {
            assert_eq!(ways(text, ""), Ok(vec![Transmission::SyslogTcp]), "{text}");
        }
        for nothing in ["*.* stop\n*.* @@l.example\n", "if $syslogseverity <= 7 then stop\n*.* @@l.example\n"] {
            assert_eq!(ways(nothing, ""), Ok(vec![]), "{nothing}");
        }
    }

    #[test]
    fn what_is_sent_has_an_input() {
        for (inputs, has) in [
            ("module(load=\"imuxsock\")", true),
            ("module(load=\"imuxsock\" SysSock.Use=\"on\")", true),
            ("$ModLoad imuxsock.so", true),
            // RHEL's.
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"imjournal\" StateFile=\"s\")", true),
            ("$OmitLocalLogging on\n$ModLoad imuxsock\n$ModLoad imjournal", true),
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"/dev/log\")", true),
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")\n$AddUnixListenSocket /dev/log", true),
            ("module(load=\"imuxsock\" SysSock.Name=\"/run/systemd/journal/syslog\")", true),
            ("$DefaultRuleset a\n$RuleSet a\ninput(type=\"imuxsock\" socket=\"/dev/log\" ruleset=\"a\")", true),
            ("module(load=\"imjournal\" ratelimit.burst=\"20000\")", true),
            // No limit.
            ("module(load=\"imjournal\" RateLimit.Interval=\"0\" RateLimit.Burst=\"0\")", true),
            ("module(load=\"imuxsock\" SysSock.RateLimit.Interval=\"0\" SysSock.RateLimit.Burst=\"0\")", true),
            ("$ModLoad imuxsock\n$SystemLogRateLimitInterval 0\n$SystemLogRateLimitBurst 0", true),
            ("$ModLoad imuxsock\n$SystemLogRateLimitBurst 10", true),
            ("$ModLoad imuxsock\n$SystemLogRateLimitInterval 2\n$SystemLogRateLimitBurst 500", true),
            ("$ModLoad imuxsock\n$SystemLogRateLimitInterval 5\n$SystemLogRateLimitBurst 10", false),
            ("$ModLoad imjournal\n$imjournalRatelimitBurst 10", false),
            ("$ModLoad imjournal\n$imjournalRatelimitInterval 86400", false),
            // Of a program that is locked into a folder.
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"/srv/dev/log\")", false),
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")\n$AddUnixListenSocket /run/s", false),
            ("module(load=\"imuxsock\" SysSock.Name=\"/run/none\")", false),
            ("$ModLoad imuxsock\n$SystemLogSocketName /run/none", false),
            ("module(load=\"imjournal\" RateLimit.Interval=\"36000\" RateLimit.Burst=\"1\")", false),
            ("module(load=\"imuxsock\" SysSock.RateLimit.Interval=\"3600\" SysSock.RateLimit.Burst=\"1\")", false),
            ("", false),
            ("module(load=\"imklog\")", false),
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")", false),
            ("$ModLoad imuxsock\n$OmitLocalLogging on", false),
            ("module(load=\"imuxsock\" config.enabled=\"off\")", false),
            ("module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" ruleset=\"a\")", false),
            ("module(load=\"imudp\")\ninput(type=\"imudp\" port=\"514\")", false),
        ] {
            let Sending { ways, doubt } = parse(&format!("{inputs}\n*.* @@l.example\n"), "", &Own::default());
            assert_eq!((ways.len(), doubt.is_none()), (usize::from(has), has), "{inputs}: {doubt:?}");
        }
    }

    #[test]
    fn the_folder_is_read_where_it_is_taken_in() {
        let folder = "*.* @@l.example\n";
        for main in [
            "$IncludeConfig /etc/rsyslog.d/*.conf\n",
            "include(file=\"/etc/rsyslog.d/*.conf\" mode=\"optional\")\n",
            "*.* /var/log/syslog\n $includeconfig /etc/rsyslog.d/*.conf\n",
        ] {
            assert!(takes_folder(main), "{main}");
            assert_eq!(ways(main, folder), Ok(vec![Transmission::SyslogTcp]), "{main}");
        }
        for main in ["*.* /var/log/syslog\n", "# $IncludeConfig /etc/rsyslog.d/*.conf\n", ""] {
            assert!(!takes_folder(main), "{main}");
            assert_eq!(ways(main, folder), Ok(vec![]), "{main}");
        }
        // What is stopped before is not sent.
        assert_eq!(ways("*.* ~\n$IncludeConfig /etc/rsyslog.d/*.conf\n", folder), Ok(vec![]));
    }

    #[test]
    fn settings_from_elsewhere_are_told() {
        for (text, path) in [
            ("$IncludeConfig /opt/x.conf\n", "/opt/x.conf"),
            ("include(file=\"/opt/y.conf\" mode=\"optional\")\n", "/opt/y.conf"),
            // It takes in files of any name.
            ("$IncludeConfig /etc/rsyslog.d/\n", "/etc/rsyslog.d/"),
            ("$IncludeConfig /etc/rsyslog.d/*.conf\n$IncludeConfig /etc/rsyslog.d/*.conf\n", "/etc/rsyslog.d/*.conf"),
        ] {
            assert!(ways(text, "").unwrap_err().contains(path), "{text}");
        }
        assert!(ways("$IncludeConfig /etc/rsyslog.d/*.conf\n", "$IncludeConfig /etc/rsyslog.d/*.conf\n").is_err());
        // What comes before is sent whatever stands elsewhere, and what comes after may be stopped there.
        assert_eq!(ways("*.* @@l\n$IncludeConfig /opt/x.conf\n", ""), Ok(vec![Transmission::SyslogTcp]));
        for text in [
            "$IncludeConfig /opt/x.conf\n*.* @@l\n",
            "include(file=\"/opt/x.conf\")\n*.* @@l\n",
            "ruleset(name=\"r\") {\n @@l\n}\ninclude(file=\"/opt/x.conf\")\ncall r\n",
        ] {
            let doubt = ways(text, "").unwrap_err();
            assert!(doubt.contains("/opt/x.conf") || doubt.contains("ruleset"), "{text}: {doubt}");
        }
        let suse = format!("$IncludeConfig {SOCKETS}\n$IncludeConfig /etc/rsyslog.d/*.conf\n");
        assert_eq!(ways(&suse, "*.* @@l\n"), Ok(vec![Transmission::SyslogTcp]));
    }

    #[test]
    fn blocks_in_blocks_have_an_end() {
        assert!(ways(&"{".repeat(DEPTH + 1), "").is_err());
        assert_eq!(ways(&"{".repeat(DEPTH), ""), Ok(vec![]));
        let rulesets = |count| (1..count).map(|n| format!("ruleset(name=\"{n}\") {{}}\n")).collect::<String>();
        assert_eq!(ways(&rulesets(RULESETS), ""), Ok(vec![]));
        assert!(ways(&rulesets(RULESETS + 1), "").is_err());
    }
}
