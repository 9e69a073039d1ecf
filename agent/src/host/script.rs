//! The questions that Windows is asked: one fixed script of PowerShell for each, which prints one line of JSON.
//!
//! A script prints numbers and names of the documented interfaces, never a text that Windows translates, but for the title of an
//! update. It is ASCII without double quotes, so that no rule of quoting is met between here and PowerShell, uses nothing that
//! the constrained language mode takes away where that can be helped, and changes nothing. What it prints is read by
//! `probe/answer.rs`. **No script has ever run on Windows**: they are written from Microsoft's documentation.

/// A question to Windows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Script {
    /// Which profiles of the firewall are in force: `MSFT_NetFirewallProfile` of the active store, and its services.
    Firewall,
    /// What the host is: `Win32_OperatingSystem`, `Win32_ComputerSystem`, `Win32_BIOS`, `Win32_DeviceGuard` and the registry.
    System,
    /// Which updates are pending: the Windows Update Agent, asked offline, and its policy.
    Updates,
    /// Which volumes there are and what BitLocker says of each: `Win32_Volume` and `Win32_EncryptableVolume`.
    Volumes,
}

impl Script {
    /// Every script.
    pub const ALL: [Self; 4] = [Self::Firewall, Self::System, Self::Updates, Self::Volumes];

    /// Returns its name in captures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firewall => "powershell-firewall",
            Self::System => "powershell-system",
            Self::Updates => "powershell-updates",
            Self::Volumes => "powershell-volumes",
        }
    }

    /// Returns its text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Firewall => include_str!("script/firewall.ps1"),
            Self::System => include_str!("script/system.ps1"),
            Self::Updates => include_str!("script/updates.ps1"),
            Self::Volumes => include_str!("script/volumes.ps1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_needs_no_quoting_and_asks_without_changing() {
        for script in Script::ALL {
            let text = script.text();
            assert!(text.is_ascii() && !text.contains(['"', '`', '\r']) && text.len() < 8192, "{script:?}");
            for cmdlet in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| {
                // A cmdlet is a verb, a hyphen and a noun, each with a capital.
                let parts = word.split_once('-');
                parts.is_some_and(|(verb, noun)| [verb, noun].iter().all(|part| part.starts_with(char::is_uppercase)))
            }) {
                let asks =
                    ["Get-", "ConvertTo-Json", "ForEach-Object", "New-Object", "Invoke-CimMethod", "Select-Object"];
                assert!(asks.iter().any(|verb| cmdlet.starts_with(verb)), "{script:?} runs {cmdlet}");
            }
            // Names may have any letter; the code page of the console would lose those, and with them the answer.
            assert!(text.contains("[Console]::OutputEncoding = [Text.Encoding]::UTF8"), "{script:?}");
            // Each method that is invoked only tells.
            for method in text.split("-MethodName ").skip(1) {
                assert!(method.starts_with("Get") || method.starts_with("$name"), "{script:?}");
            }
        }
    }
}
