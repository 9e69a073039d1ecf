//! Software and its updates, as lines.

use super::{ITEMS, more, table, text, unknown, yes_no};
use crate::{
    fact::{PatchLevel, PendingUpdate, Reading, Software},
    words::counted,
};

pub(super) fn patch_level(patch: &PatchLevel) -> Vec<String> {
    let security = patch.pending.iter().filter(|update| update.security).count();
    let complete = match &patch.pending_complete {
        Reading::Known(true) => String::new(),
        Reading::Known(false) => ", list is not complete".to_owned(),
        Reading::Unknown { unknown: why } => format!(", whether the list is complete: {}", unknown(why)),
    };
    let pending = match &patch.pending_complete {
        // Where no source was read, none is no number.
        Reading::Unknown { unknown: why } if patch.pending.is_empty() && patch.sources.is_empty() => unknown(why),
        _ => format!("{} updates, {security} of them security{complete}", patch.pending.len()),
    };
    let reboot = match (&patch.reboot_required, &patch.reboot_required_since_time) {
        (Reading::Known(true), Some(since)) => format!("required since {}", text(since)),
        (required, _) => yes_no(required),
    };
    let mut lines = table(&[
        ("manager", patch.manager.as_str().to_owned()),
        ("pending", pending),
        (
            "metadata",
            format!(
                "security {}, valid until {}{}",
                text(&patch.security_metadata_time),
                text(&patch.security_metadata_valid_until_time),
                patch
                    .security_metadata_verified
                    .as_ref()
                    .map_or_else(String::new, |it| format!(", verified {}", yes_no(it)))
            ),
        ),
        ("kernel", format!("running {}, newest {}", text(&patch.running_kernel), text(&patch.newest_kernel))),
        ("restart", reboot),
        (
            "unattended",
            format!(
                "{}, last success {}",
                yes_no(&patch.automatic_updates.enabled),
                text(&patch.automatic_updates.last_success_time)
            ),
        ),
    ]);
    if !patch.live_patches.is_empty() {
        let patches: Vec<_> = patch.live_patches.iter().take(ITEMS).map(|patch| patch.as_str()).collect();
        lines.push(format!("{:<14}{}", "live patches", patches.join(", ")));
    }
    if !patch.reboot_packages.is_empty() {
        let packages: Vec<_> = patch.reboot_packages.iter().take(ITEMS).map(|package| package.as_str()).collect();
        lines.push(format!("{:<14}{}", "restart for", packages.join(", ")));
    }
    lines.extend(patch.pending.iter().take(ITEMS).map(pending_update));
    lines.extend(more(patch.pending.len(), "updates"));
    lines.extend(patch.sources.iter().take(ITEMS).map(|source| {
        format!(
            "source {} {} ({}){}: of {}, valid until {}",
            source.label,
            source.codename,
            source.suite,
            if source.security { ", security" } else { "" },
            text(&source.release_time),
            text(&source.valid_until_time)
        )
    }));
    lines.extend(more(patch.sources.len(), "sources"));
    lines
}

fn pending_update(update: &PendingUpdate) -> String {
    format!(
        "{} {} -> {} ({}) from {}, since {}{}{}{}{}",
        update.package,
        update.installed_version,
        update.candidate_version,
        update.architecture,
        update.origin,
        update.first_offered_time,
        update
            .available_after_time
            .as_ref()
            .map_or_else(String::new, |it| format!(" at the latest, not before {}", text(it))),
        update.phased_percent.as_ref().map_or_else(String::new, |it| format!(", phased at {} %", text(it))),
        if update.security { ", security" } else { "" },
        if update.held { ", held" } else { "" },
    )
}

pub(super) fn software(software: &Software) -> Vec<String> {
    let mut lines = vec![counted(software.packages.len(), "package")];
    lines.extend(software.packages.iter().take(ITEMS).map(|package| {
        format!("{} {} ({}, {})", package.name, package.version, package.architecture, package.manager.as_str())
    }));
    lines.extend(more(software.packages.len(), "packages"));
    lines
}
