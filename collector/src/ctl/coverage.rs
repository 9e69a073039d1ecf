//! `controls coverage`: which requirements of a framework the evidence supports, and which it does not address.

use std::path::Path;

use muster_proto::{v1, words::counted};
use serde_json::{Value, json};

use super::{
    Error, Outcome,
    connect::Connection,
    fleet::field,
    pages::all_pages,
    print::{Cell, Out, Tone, safe, table},
    trial,
};
use crate::{
    control::{
        Catalogue,
        coverage::{self, Coverage, Mapped, Support},
    },
    snapshot::csv,
};

/// Columns of a line of text, at most.
const COLUMNS: usize = 110;
/// What no control's evidence supports.
const NOT_ADDRESSED: &str = "not addressed by endpoint evidence";
/// How the report is to be read.
const READING: &str = "A control listed here supports the requirement in part; no control, and no number of them, meets it. What no control of this\n\
    catalogue addresses is neither a gap nor a pass: it is for other evidence to show.";

/// Controls, and which catalogue they are of.
#[derive(Debug)]
pub struct Mappings {
    catalogue: String,
    mapped: Vec<Mapped>,
}

/// Returns the mappings of the built-in controls, with an operator's file over them.
///
/// # Errors
///
/// When the file cannot be read, or is one that a collector refuses.
pub fn of_file(file: Option<&Path>) -> Result<Mappings, Error> {
    let catalogue = match file {
        None => Catalogue::built_in(),
        Some(file) => Catalogue::with_overlay(&trial::read(file)?)
            .map_err(|source| Error::Controls { path: file.to_owned(), source: Box::new(source) })?,
    };
    Ok(Mappings { catalogue: catalogue.version().to_owned(), mapped: coverage::mapped(catalogue.controls()) })
}

/// Returns the mappings of the catalogue that a collector judges by.
///
/// # Errors
///
/// When the collector does not answer.
pub async fn of_collector(connection: &Connection) -> Result<Mappings, Error> {
    let mut client = connection.fleet();
    let controls = all_pages!(connection, None, controls, |page_size, page_token| {
        client.list_controls(v1::ListControlsRequest {
            page_size,
            page_token: page_token.clone(),
            filter: String::new(),
        })
    });
    let mut mappings = Mappings { catalogue: String::new(), mapped: Vec::new() };
    for summary in controls {
        let request = v1::GetControlRequest { control_id: summary.control_id.clone() };
        let answer = client.get_control(request).await;
        let control = answer.map_err(|status| connection.fault(&status))?.into_inner();
        mappings.catalogue = control.catalogue_version;
        mappings.mapped.extend(control.mappings.into_iter().map(|mapping| Mapped {
            framework: mapping.framework,
            requirement: mapping.requirement,
            support: Support {
                control: summary.control_id.clone(),
                title: summary.title.clone(),
                confidence: mapping.confidence,
            },
        }));
    }
    Ok(mappings)
}

/// Prints what the controls' evidence addresses: of `framework` each requirement, without one the counts of all.
///
/// # Errors
///
/// When no framework has that name.
pub fn print(out: Out, mappings: &Mappings, framework: Option<&str>) -> Result<Outcome, Error> {
    let mut all = coverage::of(&mappings.mapped);
    if let Some(name) = framework {
        all.retain(|coverage| coverage.framework == name);
        if all.is_empty() {
            let names: Vec<&str> = coverage::frameworks().collect();
            return Err(Error::Usage(format!("there is no framework `{name}`; name one of: {}", names.join(", "))));
        }
    }
    out.show_table(
        || value(&mappings.catalogue, &all),
        |out| match (framework, all.as_slice()) {
            (Some(_), [coverage]) => text(out, &mappings.catalogue, coverage),
            _ => overview(out, &mappings.catalogue, &all),
        },
        || rows(&mappings.catalogue, &all),
    )?;
    Ok(Outcome::Yes)
}

fn overview(out: Out, catalogue: &str, all: &[Coverage]) -> String {
    let row = |coverage: &Coverage| {
        let (addressed, not) = (coverage.addressed().count() as u64, coverage.not_addressed().count() as u64);
        let list = coverage.lacks.as_ref().map_or_else(|| "complete".to_owned(), |lacks| format!("lacks {lacks}"));
        let tone = if coverage.lacks.is_none() { Tone::Plain } else { Tone::Doubt };
        vec![
            Cell::from(coverage.framework.as_str()),
            coverage.title.as_str().into(),
            (addressed + not).into(),
            addressed.into(),
            not.into(),
            Cell::new(&list, tone),
        ]
    };
    let titles = ["FRAMEWORK", "TITLE", "LISTED", "ADDRESSED", "NOT ADDRESSED", "LIST OF REQUIREMENTS"];
    let mut text = field("catalogue", catalogue) + "\n";
    text.push_str(&table(out, &titles, &all.iter().map(row).collect::<Vec<_>>()));
    text + &format!("\n{READING}\nEach requirement: musterctl controls coverage --framework NAME\n")
}

fn text(out: Out, catalogue: &str, coverage: &Coverage) -> String {
    let (addressed, not) = (coverage.addressed().count(), coverage.not_addressed().count());
    let mut text = format!("{}\n\n", out.tone(Tone::Strong, &safe(&coverage.title)));
    let list = match &coverage.lacks {
        None => "complete".to_owned(),
        Some(lacks) => format!("not complete: it lacks {lacks}"),
    };
    for (name, value) in [
        ("framework", coverage.framework.clone()),
        ("catalogue", catalogue.to_owned()),
        ("list", format!("{}, {list}", counted(addressed + not, "requirement"))),
        ("addressed", format!("{addressed}, each in part")),
        ("not", format!("{not} {NOT_ADDRESSED}")),
    ] {
        text.push_str(&field(name, &value));
    }
    text.push_str(&format!("\n{READING}\n"));
    if addressed > 0 {
        let rows: Vec<_> =
            coverage.addressed().flat_map(|requirement| supported(&requirement.id, &requirement.controls)).collect();
        text.push_str(&format!("\n{}", table(out, &["REQUIREMENT", "CONTROL", "CONFIDENCE", "TITLE"], &rows)));
    }
    if not > 0 {
        let ids: Vec<&str> = coverage.not_addressed().map(|requirement| requirement.id.as_str()).collect();
        text.push_str(&format!(
            "\n{}\n{}",
            out.tone(Tone::Strong, "Not addressed by endpoint evidence"),
            wrapped(&ids)
        ));
    }
    text
}

/// Returns a row for each control of a requirement; the first alone names it.
fn supported(id: &str, controls: &[Support]) -> Vec<Vec<Cell>> {
    let row = |(index, support): (usize, &Support)| {
        vec![
            Cell::from(if index == 0 { id } else { "" }),
            support.control.as_str().into(),
            support.confidence.as_str().into(),
            support.title.as_str().into(),
        ]
    };
    controls.iter().enumerate().map(row).collect()
}

fn wrapped(ids: &[&str]) -> String {
    let mut lines = vec![String::new()];
    for id in ids {
        let id = safe(id);
        let line = lines.last_mut().expect("there is one");
        if line.len() + id.len() + 2 > COLUMNS && !line.is_empty() {
            lines.push(format!("  {id}"));
        } else {
            line.push_str("  ");
            line.push_str(&id);
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn value(catalogue: &str, all: &[Coverage]) -> Value {
    let framework = |coverage: &Coverage| {
        json!({
            "framework": coverage.framework, "title": coverage.title, "list_complete": coverage.lacks.is_none(),
            "list_lacks": coverage.lacks,
            "counts": {
                "listed": coverage.requirements.len(), "addressed": coverage.addressed().count(),
                "not_addressed": coverage.not_addressed().count(),
            },
            "requirements": coverage.requirements.iter().map(|requirement| json!({
                "id": requirement.id, "addressed": !requirement.controls.is_empty(), "controls": requirement.controls,
            })).collect::<Vec<_>>(),
        })
    };
    json!({ "catalogue_version": catalogue, "frameworks": all.iter().map(framework).collect::<Vec<_>>() })
}

/// Returns a row for each requirement and control, and one for each requirement that none supports.
fn rows(catalogue: &str, all: &[Coverage]) -> Vec<u8> {
    let columns =
        ["framework", "requirement", "status", "control", "confidence", "control_title", "list_complete", "catalogue"];
    let mut table = csv::Table::new(&columns);
    for coverage in all {
        let is_complete = if coverage.lacks.is_none() { "yes" } else { "no" };
        let mut row = |id: &str, status: &str, control: &str, confidence: &str, title: &str| {
            let cells = [&coverage.framework, id, status, control, confidence, title, is_complete, catalogue];
            let cells = cells.map(safe);
            table.row(&cells.each_ref().map(|cell| csv::Cell::Text(cell)));
        };
        for requirement in &coverage.requirements {
            if requirement.controls.is_empty() {
                row(&requirement.id, NOT_ADDRESSED, "", "", "");
            }
            for support in &requirement.controls {
                row(&requirement.id, "supported in part", &support.control, &support.confidence, &support.title);
            }
        }
    }
    table.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::print::Form;

    fn soc2() -> (Mappings, Coverage) {
        let mappings = of_file(None).unwrap();
        let all = coverage::of(&mappings.mapped);
        (mappings, all.into_iter().find(|it| it.framework == "soc2").unwrap())
    }

    #[test]
    fn a_framework_is_shown_whole_each_requirement_either_supported_or_said_not_to_be_addressed() {
        let (mappings, soc2) = soc2();
        let text = text(Out::new(Form::Json), &mappings.catalogue, &soc2);
        assert!(text.contains("61 requirements, complete"), "{text}");
        let (table, not) = text.split_once("\nNot addressed by endpoint evidence\n").unwrap();
        for requirement in &soc2.requirements {
            let is_named = |text: &str| text.split_whitespace().any(|word| word == requirement.id);
            let expected = !requirement.controls.is_empty();
            assert_eq!((is_named(table), is_named(not)), (expected, !expected), "{}", requirement.id);
        }
        assert!(text.lines().all(|line| line.len() < 160), "{text}");
    }

    #[test]
    fn a_list_that_is_not_complete_is_not_called_so() {
        let mappings = of_file(None).unwrap();
        let all = coverage::of(&mappings.mapped);
        let text = overview(Out::new(Form::Json), &mappings.catalogue, &all);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("soc2").ends_with("complete"), "{text}");
        assert!(line("hitrust").contains("lacks every reference that no built-in control names"), "{text}");
        let value = value(&mappings.catalogue, &all);
        for framework in value["frameworks"].as_array().unwrap() {
            assert_eq!(framework["list_complete"].as_bool().unwrap(), framework["list_lacks"].is_null());
            let counts = &framework["counts"];
            let count = |name: &str| counts[name].as_u64().unwrap();
            assert_eq!(count("listed"), count("addressed") + count("not_addressed"));
        }
    }

    #[test]
    fn a_spreadsheet_has_a_row_for_each_requirement_and_none_calls_one_met() {
        let (mappings, soc2) = soc2();
        let rows = String::from_utf8(rows(&mappings.catalogue, std::slice::from_ref(&soc2))).unwrap();
        assert!(
            rows.contains("\"soc2\",\"CC1.1\",\"not addressed by endpoint evidence\",\"\",\"\",\"\",\"yes\","),
            "{rows}"
        );
        assert!(rows.contains("\"soc2\",\"CC6.7\",\"supported in part\",\"ENC-01\",\"high\","), "{rows}");
        assert!(soc2.requirements.iter().all(|it| rows.contains(&format!("\"{}\"", it.id))), "{rows}");
        assert!(!["satisf", "passed", " met", "compliant"].iter().any(|word| rows.contains(word)), "{rows}");
    }
}
