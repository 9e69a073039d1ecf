//! `files timeline`: what is known of a host's files, in the order in which the collector learned of it.

use muster_proto::{v1, words::counted};
use serde_json::json as value;

use super::{change_line, json, list, say_dropped, state_text, tone};
use crate::ctl::{
    Error, Outcome,
    connect::Connection,
    fleet::time_text,
    pages::all_pages,
    print::{Out, Tone, safe},
};

/// Prints the baselines of a host and its changes, or those of one path.
///
/// # Errors
///
/// When the collector does not answer or does not know the host.
pub async fn timeline(connection: &Connection, out: Out, host: &str, path: Option<&str>) -> Result<Outcome, Error> {
    let mut client = connection.fleet();
    let baselines = all_pages!(connection, None, baselines, |page_size, page_token| {
        let host = host.to_owned();
        client.list_file_baselines(v1::ListFileBaselinesRequest { page_size, page_token: page_token.clone(), host })
    });
    let (host, path) = (host.to_owned(), path.unwrap_or_default().to_owned());
    let asked = v1::ListFileChangesRequest { host, path, ..Default::default() };
    let (changes, dropped) = list(connection, asked, None).await?;
    out.show(
        || {
            value!({
                "baselines": baselines.iter().map(json::baseline).collect::<Vec<_>>(),
                "changes": changes.iter().map(json::change).collect::<Vec<_>>(),
            })
        },
        |out| text(out, &baselines, &changes),
    )?;
    say_dropped(dropped, "older change");
    Ok(Outcome::Yes)
}

fn text(out: Out, baselines: &[v1::HostBaseline], changes: &[v1::HostFileChange]) -> String {
    let of_baselines = baselines.iter().map(|it| ((it.log_index, 0, it.number), baseline_text(out, it)));
    let of_changes = changes.iter().map(|it| ((it.log_index, 1, it.number), change_text(out, it)));
    let mut parts: Vec<_> = of_baselines.chain(of_changes).collect();
    parts.sort_by_key(|(at, _)| *at);
    parts.into_iter().map(|(_, text)| text).collect()
}

fn baseline_text(out: Out, baseline: &v1::HostBaseline) -> String {
    let it = baseline.baseline.clone().unwrap_or_default();
    let line = format!(
        "baseline {} of {}, {} ({})",
        it.id.get(..12).unwrap_or(&it.id),
        time_text(it.created_time.as_ref()),
        counted(it.entries, "entry"),
        it.reason
    );
    let mut text = head(out, baseline.received_time.as_ref(), &line, baseline.log_index);
    if baseline.lost_before {
        let line = "it took another one's place without a reason: what had changed by then is forgotten";
        text.push_str(&format!("    {}\n", out.tone(Tone::Bad, line)));
    }
    text
}

fn change_text(out: Out, change: &v1::HostFileChange) -> String {
    let mut text = head(out, change.received_time.as_ref(), &change_line(change.change.as_ref()), change.log_index);
    let mut line = state_text(change);
    if change.end_time.is_some() {
        let why = json::end(change.end()).replace('_', " ");
        let reason = if change.end_reason.is_empty() { String::new() } else { format!(" ({})", change.end_reason) };
        line = format!(
            "{line} {}, log index {}: {why}{reason}",
            time_text(change.end_time.as_ref()),
            change.end_log_index
        );
    }
    text.push_str(&format!("    {}\n", out.tone(tone(change.state()), &safe(&line))));
    if let Some(it) = &change.acknowledgement {
        let reference = if it.reference.is_empty() { String::new() } else { format!(" ({})", it.reference) };
        let when = time_text(it.time.as_ref());
        let line = format!("acknowledged by {} {when}, log index {}: {}{reference}", it.actor, it.log_index, it.reason);
        text.push_str(&format!("    {}\n", safe(&line)));
    }
    text
}

fn head(out: Out, received: Option<&prost_types::Timestamp>, line: &str, log_index: u64) -> String {
    let origin = out.tone(Tone::Dim, &format!("log index {log_index}"));
    format!("{}  {}  {origin}\n", time_text(received), safe(line))
}

#[cfg(test)]
mod tests {
    use muster_proto::{
        fact::{self, Fact, Reading, sample},
        time::Timestamp,
    };
    use prost::Message as _;

    use super::*;
    use crate::ctl::print::Form;

    fn time(seconds: i64) -> Option<prost_types::Timestamp> {
        Timestamp::from_seconds(seconds).map(Timestamp::to_wire)
    }

    fn sample_change() -> v1::FileChange {
        let encoded = Fact::FileIntegrity(Reading::Known(sample::file_integrity())).encode();
        let Some(v1::fact::Fact::FileIntegrity(fact)) = v1::Fact::decode(encoded.as_slice()).unwrap().fact else {
            panic!("another subject")
        };
        let Some(v1::file_integrity_fact::Reading::Known(mut files)) = fact.reading else { panic!("not known") };
        files.changes.remove(0)
    }

    #[test]
    fn what_happened_stands_in_the_order_in_which_it_was_learned() {
        let baseline = |number, log_index, reason: &str, lost_before| v1::HostBaseline {
            number,
            baseline: Some(v1::Baseline {
                id: "ab".repeat(16),
                created_time: time(0),
                reason: reason.to_owned(),
                entries: 7,
                digest: "cd".repeat(32),
            }),
            received_time: time(i64::try_from(log_index).unwrap()),
            log_index,
            lost_before,
        };
        let change = v1::HostFileChange {
            number: 1,
            change: Some(sample_change()),
            state: v1::FileChangeState::Ended.into(),
            received_time: time(5),
            log_index: 5,
            end: v1::FileChangeEnd::Accepted.into(),
            end_time: time(9),
            end_log_index: 9,
            end_reason: "CHG-7".to_owned(),
            acknowledgement: Some(v1::FileChangeAcknowledgement {
                actor: "spiffe://c/operator/bob".to_owned(),
                time: time(6),
                log_index: 6,
                reason: "planned".to_owned(),
                reference: "CHG-7".to_owned(),
            }),
            ..Default::default()
        };
        let baselines =
            [baseline(1, 2, "first scan", false), baseline(2, 9, "CHG-7", false), baseline(3, 12, "first scan", true)];
        let text = text(Out::new(Form::Json), &baselines, &[change]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "1970-01-01T00:00:02Z  baseline abababababab of 1970-01-01T00:00:00Z, 7 entries (first scan)  log index 2"
        );
        assert!(lines[1].starts_with("1970-01-01T00:00:05Z  content /etc/passwd [system]: file 0644"), "{text}");
        assert_eq!(lines[2], "    ended 1970-01-01T00:00:09Z, log index 9: accepted (CHG-7)");
        let word = "    acknowledged by spiffe://c/operator/bob 1970-01-01T00:00:06Z, log index 6: planned (CHG-7)";
        assert_eq!(lines[3], word);
        assert!(lines[4].contains("(CHG-7)") && lines[5].contains("(first scan)"), "{text}");
        assert_eq!(lines[6], "    it took another one's place without a reason: what had changed by then is forgotten");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn nothing_that_moves_a_terminal_gets_into_a_timeline() {
        let hostile = "a\u{1b}[2J\u{202e}\n".to_owned();
        let change = v1::HostFileChange {
            change: Some(v1::FileChange { path: hostile.clone(), ..sample_change() }),
            end_time: time(1),
            end_reason: hostile.clone(),
            acknowledgement: Some(v1::FileChangeAcknowledgement {
                actor: hostile.clone(),
                reason: hostile.clone(),
                reference: hostile.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let baseline = v1::HostBaseline {
            baseline: Some(v1::Baseline { id: hostile.clone(), reason: hostile, ..Default::default() }),
            ..Default::default()
        };
        let text = text(Out::new(Form::Json), &[baseline], &[change]);
        assert!(!text.chars().any(|c| c != '\n' && fact::is_unsafe(c)), "{text:?}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
