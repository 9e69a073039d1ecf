//! Answers of the scripts that ask Windows: one JSON object with a version and named parts, each a list or an error.

use muster_proto::fact::{Cause, Unknown};
use serde::{Deserialize, de::DeserializeOwned};

use crate::host::{self, Host, Script, Tool};

/// Version of the form that the scripts print.
const VERSION: u64 = 1;

/// An answer.
pub(super) struct Answer {
    parts: serde_json::Map<String, serde_json::Value>,
    script: Script,
}

/// A part that could not be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    /// Number of the exception (HRESULT), as a signed number.
    hresult: i64,
    /// `MI_Result` of the exception, when it came from the management classes; else 0.
    #[serde(default)]
    cim: Option<i64>,
    /// `ErrorCategory` of PowerShell, by which alone its providers tell what failed: the number of their exceptions is one for all.
    #[serde(default)]
    category: Option<i64>,
    /// Name of the exception's class, which is not translated.
    #[serde(default)]
    reason: Option<String>,
}

impl Failure {
    /// The numbers are those of `System.Management.Automation.ErrorCategory`.
    fn cause(&self) -> Cause {
        let is_command = self.reason.as_deref() == Some("CommandNotFoundException");
        match (failure_cause(self.hresult, self.cim.unwrap_or(0)), self.category) {
            // ObjectNotFound, such as a key that the registry does not have. Of a command, what it would have told is not known.
            (Cause::Failed, Some(13)) if !is_command => Cause::Absent,
            // PermissionDenied.
            (Cause::Failed, Some(18)) => Cause::Forbidden,
            (cause, _) => cause,
        }
    }
}

/// Asks `host` the question of `script`.
pub(super) fn ask(host: &dyn Host, script: Script) -> Result<Answer, Unknown> {
    let output = host
        .run(Tool::PowerShell(script), &[])
        .map_err(|error| host::unknown(format!("run {}", script.name()), &error))?;
    parse(&output, script)
        .ok_or_else(|| Unknown::new(Cause::Garbled, format!("{} printed no answer of its form", script.name())))
}

/// Returns the answer in `output`, which a byte-order mark may precede.
pub(super) fn parse(output: &[u8], script: Script) -> Option<Answer> {
    let output = output.strip_prefix(b"\xef\xbb\xbf").unwrap_or(output);
    let parts: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(output).ok()?;
    (parts.get("version")?.as_u64()? == VERSION).then_some(Answer { parts, script })
}

impl Answer {
    /// Returns the items of the part `name`, or why Windows could not tell them.
    pub(super) fn part<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, Unknown> {
        let script = self.script.name();
        let garbled = || Unknown::new(Cause::Garbled, format!("{script} printed no sound part {name}"));
        let part = self.parts.get(name).ok_or_else(garbled)?;
        if let Some(items) = part.get("value") {
            return Vec::deserialize(items).map_err(|_| garbled());
        }
        let failure = Failure::deserialize(part).map_err(|_| garbled())?;
        let cim = failure.cim.unwrap_or(0);
        let detail = format!("{script}, part {name}: error {:#010x}, result {cim}", failure.hresult as u32);
        Err(Unknown::new(failure.cause(), detail))
    }

    /// Returns the only item of the part `name`.
    pub(super) fn one<T: DeserializeOwned>(&self, name: &str) -> Result<T, Unknown> {
        let mut items = self.part(name)?;
        match (items.pop(), items.is_empty()) {
            (Some(item), true) => Ok(item),
            _ => {
                let detail = format!("{} did not print one item in part {name}", self.script.name());
                Err(Unknown::new(Cause::Garbled, detail))
            }
        }
    }
}

/// The numbers are those of `MI_Result` (mi.h of the Windows SDK), of WMI (wbemcli.h), and of winerror.h.
pub(super) fn failure_cause(hresult: i64, cim: i64) -> Cause {
    // HRESULTs are printed as signed or as unsigned numbers.
    match (cim, hresult as u32) {
        // MI_RESULT_ACCESS_DENIED; E_ACCESSDENIED; WBEM_E_ACCESS_DENIED; a refused security or authorisation of .NET.
        (2, _) | (_, 0x8007_0005 | 0x8004_1003 | 0x8013_150a | 0x8007_0522) => Cause::Forbidden,
        // MI_RESULT_INVALID_NAMESPACE, _INVALID_CLASS, _NOT_FOUND; WBEM_E_NOT_FOUND, _INVALID_NAMESPACE, _INVALID_CLASS;
        // ERROR_FILE_NOT_FOUND; REGDB_E_CLASSNOTREG.
        (3 | 5 | 6, _) | (_, 0x8004_1002 | 0x8004_100e | 0x8004_1010 | 0x8007_0002 | 0x8004_0154) => Cause::Absent,
        // MI_RESULT_NOT_SUPPORTED; E_NOTIMPL; WBEM_E_NOT_SUPPORTED.
        (7, _) | (_, 0x8000_4001 | 0x8004_100c) => Cause::Unsupported,
        // A time-out of WMI, of Windows Update.
        (_, 0x8004_3001 | 0x8024_0438) => Cause::TimedOut,
        _ => Cause::Failed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(output: &str) -> Result<Vec<u64>, Cause> {
        match parse(output.as_bytes(), Script::Volumes) {
            Some(answer) => answer.part("a").map_err(|unknown| unknown.cause),
            None => Err(Cause::Garbled),
        }
    }

    #[test]
    fn a_part_is_a_list_or_an_error_with_its_cause() {
        for (part, expected) in [
            (r#"{"value":[1,2]}"#, Ok(vec![1, 2])),
            (r#"{"value":[]}"#, Ok(vec![])),
            (r#"{"value":["1"]}"#, Err(Cause::Garbled)),
            (r#"{"value":1}"#, Err(Cause::Garbled)),
            (r#"{"hresult":-2147024891,"cim":0}"#, Err(Cause::Forbidden)),
            (r#"{"hresult":2147942405,"cim":null}"#, Err(Cause::Forbidden)),
            (r#"{"hresult":-2146233088,"cim":2}"#, Err(Cause::Forbidden)),
            (r#"{"hresult":-2146233088,"cim":3}"#, Err(Cause::Absent)),
            (r#"{"hresult":-2146233088,"cim":7}"#, Err(Cause::Unsupported)),
            (r#"{"hresult":-2146233088,"cim":1}"#, Err(Cause::Failed)),
            // A missing key of the registry, one that may not be read, and a missing command: the exceptions have one number.
            (r#"{"hresult":-2146233087,"cim":0,"category":13,"reason":"ItemNotFoundException"}"#, Err(Cause::Absent)),
            (r#"{"hresult":-2146233087,"cim":0,"category":18,"reason":"SecurityException"}"#, Err(Cause::Forbidden)),
            (
                r#"{"hresult":-2146233087,"cim":0,"category":13,"reason":"CommandNotFoundException"}"#,
                Err(Cause::Failed),
            ),
            (r#"{"hresult":-2146233087,"cim":0,"category":0,"reason":"RuntimeException"}"#, Err(Cause::Failed)),
            (r#"{"hresult":-2146233087,"cim":0}"#, Err(Cause::Failed)),
            (r#"{"hresult":-2147024891,"cim":0,"category":13,"reason":null}"#, Err(Cause::Forbidden)),
            (r#"{"message":"Zugriff verweigert"}"#, Err(Cause::Garbled)),
            ("null", Err(Cause::Garbled)),
        ] {
            assert_eq!(numbers(&format!("\u{feff}{{\"version\":1,\"a\":{part}}}\r\n")), expected, "{part}");
        }
        for output in ["", "{}", "[]", "{\"version\":2,\"a\":{\"value\":[]}}", "{\"version\":1}", "Zugriff verweigert"]
        {
            assert_eq!(numbers(output), Err(Cause::Garbled), "{output}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, Script::System);
        }
    }
}
