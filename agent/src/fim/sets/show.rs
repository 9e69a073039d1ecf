//! Watch sets as text for a person.

use std::fmt::Write as _;

use muster_proto::fact::Text;

use super::Sets;

/// Returns what each set covers, the most severe first, and the digest of its definition, as FIM-01's `accepted_sets` names it.
///
/// Names and paths come from settings, and are shown without control characters.
pub fn render(sets: &Sets) -> String {
    let mut text = String::new();
    for (set, digest) in sets.sets().iter().zip(sets.definitions()) {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}  {}, definition {digest}", set.name, set.severity.as_str());
        let paths = set.plain_paths().iter().map(|path| Text::from_bytes(path).to_string()).collect::<Vec<_>>();
        let plain = |texts: &[String]| texts.iter().map(|text| Text::new(text).to_string()).collect::<Vec<_>>();
        let depth = if set.depth == 0 { Vec::new() } else { vec![set.depth.to_string()] };
        let owner = if set.owner.is_empty() { Vec::new() } else { plain(std::slice::from_ref(&set.owner)) };
        let mounts = if set.cross_mounts { vec!["crossed".to_owned()] } else { Vec::new() };
        for (name, values) in [
            ("paths", paths),
            ("only", plain(&set.include)),
            ("without", plain(&set.exclude)),
            ("depth", depth),
            ("compares", Vec::from(set.attributes)),
            ("mounts", mounts),
            ("owner", owner),
        ] {
            if !values.is_empty() {
                let _ = writeln!(text, "  {name:<9}{}", values.join(" "));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fim::watch_set::{Attributes, WatchSet};

    #[test]
    fn sets_are_shown_with_what_they_cover() {
        let web = WatchSet {
            exclude: vec!["srv/www/*/cache".to_owned()],
            depth: 4,
            attributes: Attributes::TYPE.with(Attributes::MODE),
            owner: "web\u{1b}[2J team".to_owned(),
            cross_mounts: true,
            ..WatchSet::of_paths("web", vec!["/srv/www/".into(), "/etc/nginx".into()])
        };
        let new = WatchSet::of_paths("new", vec!["/new".into()]);
        let sets = Sets::new(&[web.clone(), new.clone()]).unwrap();
        let shown = render(&sets);
        let expected = format!(
            "new  medium, definition {}\n  paths    /new\n  compares type content size mode owner group \
             modified_time extended_attributes\nweb  medium, definition {}\n  paths    \
             /etc/nginx /srv/www\n  without  srv/www/*/cache\n  depth    4\n  compares type mode\n  mounts   crossed\n  \
             owner    web\\x1b[2J team\n",
            new.digest(),
            web.digest()
        );
        assert_eq!(shown, expected);
    }
}
