//! What rules of udev(7) do to USB storage, as far as single lines tell. Pure.

/// Returns the lines of a file without its comments, each with the number of its first one: a backslash at the end of one has the next
/// continue it.
pub(super) fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::<(usize, String)>::new();
    let mut is_continued = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with('#') {
            continue;
        }
        let start = line.strip_suffix('\\');
        match lines.last_mut().filter(|_| is_continued) {
            Some((_, before)) => before.push_str(start.unwrap_or(line)),
            None => lines.push((number + 1, start.unwrap_or(line).to_owned())),
        }
        is_continued = start.is_some();
    }
    lines
}

/// Returns whether a line is for devices of another kind alone, such as Thunderbolt's, and starts nothing.
fn is_of_others(line: &str) -> bool {
    let Some(parts) = parts(line) else { return false };
    let is_other = |part: &Part<'_>| {
        let is_plain = part.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        part.key == "subsystem" && part.is_equal && is_plain && !matches!(part.value, "usb" | "block" | "scsi")
    };
    parts.iter().any(is_other) && !parts.iter().any(Part::is_run)
}

/// Returns whether a line may keep USB storage out, let it in or make it read-only.
pub(super) fn speaks_of_storage(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    !is_of_others(&line)
        && ["authorized", "udisks_ignore", "--setro", "attr{ro}", "usb-storage", "usb_storage"]
            .iter()
            .any(|word| line.contains(word))
}

/// Returns whether a line may let devices in that nothing else lets in.
pub(super) fn authorizes(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("authorized")
        && !is_of_others(&line)
        && parts(&line).is_none_or(|parts| {
            parts.iter().any(|part| match part.key {
                key if key.contains("authorized") => part.is_set && part.value != "0",
                _ if part.is_run() && part.value.contains("authorized") => {
                    !part.value.contains("echo 0") || part.value.contains("echo 1")
                }
                _ => false,
            })
        })
}

/// Returns whether a line may load the driver past what modprobe.d(5) says.
pub(super) fn loads_driver(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let names_driver =
        |text: &str| ["usb-storage", "usb_storage", "uas", "ums-", "ums_"].iter().any(|name| text.contains(name));
    // `--ignore-install`, also as `-i` or among other letters.
    let is_past = |word: &str| word.starts_with('-') && word.contains('i');
    let loads = |command: &str| {
        ["modprobe", "insmod"].iter().any(|program| command.contains(program))
            && (names_driver(command) || command.split_whitespace().any(is_past))
    };
    loads(&line)
        && parts(&line).is_none_or(|parts| {
            parts.iter().any(|part| part.is_run() && (loads(part.value) || names_driver(part.value)))
        })
}

/// One condition of a rule, or one thing that it does.
struct Part<'a> {
    key: &'a str,
    is_set: bool,
    /// It asks whether the two are equal.
    is_equal: bool,
    value: &'a str,
}

impl Part<'_> {
    /// Whether its value is a command.
    fn is_run(&self) -> bool {
        ["run", "program", "import"].iter().any(|key| self.key.starts_with(key))
    }
}

/// Returns the parts of a line; `None` where it is no rule.
fn parts(line: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (before, after) = rest.split_once('"')?;
        let operator = before.trim_end().strip_suffix('=')?;
        let key = operator.trim_end_matches(['=', '!', '+', '-', ':']);
        let (is_set, is_equal) = (!operator.ends_with(['=', '!']), operator.ends_with('='));
        let end = after.bytes().enumerate().scan(false, |is_escaped, (at, byte)| {
            let is_end = byte == b'"' && !*is_escaped;
            *is_escaped = byte == b'\\' && !*is_escaped;
            Some(is_end.then_some(at))
        });
        let end = end.flatten().next()?;
        parts.push(Part { key: key.trim_end(), is_set, is_equal, value: &after[..end] });
        rest = after[end + 1..].trim_start_matches([',', ' ', '\t']);
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_that_sets_authorized_to_anything_but_0_may_let_devices_in() {
        for (line, expected) in [
            (r#"ACTION=="add", SUBSYSTEM=="usb", ATTR{authorized}="1""#, true),
            (r#"SUBSYSTEM=="usb" ATTR{../authorized} := "$env{X}""#, true),
            (r#"SUBSYSTEM=="usb", ATTR{authorized_default}="1""#, true),
            (r#"SUBSYSTEM=="usb", RUN+="/bin/sh -c 'echo 1 >/sys$devpath/authorized'""#, true),
            (r#"SUBSYSTEM=="usb", PROGRAM=="/bin/sh -c \"echo 1 >/sys$devpath/authorized\"""#, true),
            (r#"SUBSYSTEM=="usb", ATTR{authorized}="0", RUN+="/bin/tee /sys$devpath/authorized""#, true),
            (r#"ATTR{authorized}=1"#, true),
            (r#"SUBSYSTEM=="thunderbolt|usb", ATTR{authorized}="1""#, true),
            (r#"SUBSYSTEM!="thunderbolt", ATTR{authorized}="1""#, true),
            (r#"SUBSYSTEM=="thunderbolt", RUN+="/bin/sh -c 'echo 1 >/sys/bus/usb/devices/1-1/authorized'""#, true),
            // As guides have it.
            (r#"ACTION=="add", SUBSYSTEM=="thunderbolt", ATTR{authorized}=="0", ATTR{authorized}="1""#, false),
            (r#"ATTR{bInterfaceClass}=="08", ATTR{authorized}="0""#, false),
            (r#"ATTR{authorized}=="1", ATTR{authorized}!="0", TAG+="x""#, false),
            (r#"SUBSYSTEM=="usb", RUN+="/bin/sh -c 'echo 0 >/sys$devpath/authorized'""#, false),
            (r#"SUBSYSTEM=="block", ENV{UDISKS_IGNORE}="1""#, false),
        ] {
            assert_eq!(authorizes(line), expected, "{line}");
        }
    }

    #[test]
    fn a_rule_that_names_the_driver_to_modprobe_may_load_it() {
        for (line, expected) in [
            (r#"ATTR{bInterfaceClass}=="08", RUN+="/sbin/modprobe -i usb-storage""#, true),
            (r#"RUN+="/sbin/modprobe usb_storage""#, true),
            (r#"RUN+="/sbin/insmod /root/usb-storage.ko""#, true),
            (r#"RUN+="/sbin/modprobe -bi $env{MODALIAS}""#, true),
            (r#"RUN+="/sbin/modprobe --ignore-install $env{MODALIAS}""#, true),
            (r#"RUN+="/sbin/modprobe -b $env{MODALIAS}""#, false),
            (r#"DRIVERS=="usb-storage", RUN+="/sbin/modprobe sg""#, false),
            (r#"DRIVERS=="usb-storage", ENV{UDISKS_IGNORE}="1""#, false),
            (r#"ENV{MODALIAS}=="?*", RUN{builtin}+="kmod load '$env{MODALIAS}'""#, false),
        ] {
            assert_eq!(loads_driver(line), expected, "{line}");
        }
    }

    #[test]
    fn a_backslash_continues_a_rule_and_comments_in_it_are_left_out() {
        let text = "# a \\\nb, \\\n  # c\n  d\n\ne\\\n";
        assert_eq!(lines(text), [(2, "b, d"), (5, ""), (6, "e")].map(|(number, line)| (number, line.to_owned())));
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(
            text in "(authorized|modprobe -i|RUN|[a-z {}\"\\\\=!+:,\n#-]){0,100}",
            any in "\\PC*",
        ) {
            for text in [text, any] {
                for (_, line) in lines(&text) {
                    speaks_of_storage(&line);
                    authorizes(&line);
                    loads_driver(&line);
                }
            }
        }
    }
}
