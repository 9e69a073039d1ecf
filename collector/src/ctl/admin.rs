//! `token` and `credentials`.

use std::{path::Path, time::Duration};

use muster_proto::v1;
use serde_json::{Value, json};

use super::{
    Error, Outcome, args,
    connect::{Connection, Reach, SecretFile, reach},
    fleet::{field, time_text},
    json,
    pages::all_pages,
    print::{Cell, Out, safe, say, table},
};

/// What `token create` is asked for.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// How often it may be used.
    pub uses: u32,
    /// How long it may be used.
    pub lifetime: Duration,
    /// What it is for.
    pub note: &'a str,
    /// Enrolment file to write for agents.
    pub enroll_file: Option<&'a Path>,
    /// Address that agents reach the collector at, for that file.
    pub agent_collector: Option<&'a str>,
}

/// Makes a token and prints it, or writes it into an enrolment file.
///
/// # Errors
///
/// When the collector refuses or the file cannot be written.
pub async fn create_token(connection: &Connection, out: Out, new: NewToken<'_>) -> Result<Outcome, Error> {
    let lifetime_seconds = args::wire_seconds(new.lifetime).map_err(Error::Usage)?;
    let address = new.agent_collector.unwrap_or(connection.address());
    let reach = reach(address)?;
    // Said before a token is made that nobody would ever see.
    let file = new.enroll_file.map(SecretFile::create).transpose()?;
    let request = v1::CreateTokenRequest { uses: new.uses, lifetime_seconds, note: new.note.to_owned() };
    let answer = connection.admin().create_token(request).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let token = answer.token.ok_or(Error::Contract("it has no token"))?;
    if let (Some(path), Some(file)) = (new.enroll_file, file) {
        file.write(enroll_file(address, &answer.secret, &answer.ca_pin).as_bytes())?;
        say(&format!("wrote {}: put it to {ENROLL_PLACE} on each host, readable by the agent alone", path.display()));
        // Whoever names the address means it.
        if reach == Reach::ThisMachine && new.agent_collector.is_none() {
            say(&format!(
                "warning: it says {address}, which leads to the collector from this machine alone; for other hosts name an address of \
                 the collector's certificate with --agent-collector https://NAME:PORT"
            ));
        }
    }
    let is_shown = new.enroll_file.is_none();
    let secret = is_shown.then_some(answer.secret);
    out.show(
        || {
            let secret = secret.clone().map_or(Value::Null, Value::String);
            json!({ "token": json::token(&token), "secret": secret, "ca_pin": answer.ca_pin })
        },
        |_| {
            let mut text = secret.as_deref().map(|secret| field("token", secret)).unwrap_or_default();
            text.push_str(&field("ca pin", &answer.ca_pin));
            text.push_str(&field("id", &token.id));
            text.push_str(&field("uses", &token.uses.to_string()));
            text.push_str(&field("until", &time_text(token.expire_time.as_ref())));
            text
        },
    )?;
    Ok(Outcome::Yes)
}

const ENROLL_PLACE: &str = "/etc/muster/enroll.toml";

/// Returns the text of an enrolment file, as the agent reads it.
fn enroll_file(collector: &str, token: &str, ca_pin: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    format!("collector = {}\ntoken = {}\nca_pin = {}\n", quoted(collector), quoted(token), quoted(ca_pin))
}

/// Prints tokens.
///
/// # Errors
///
/// When the collector does not answer.
pub async fn tokens(connection: &Connection, out: Out, limit: Option<usize>) -> Result<Outcome, Error> {
    let mut client = connection.admin();
    let tokens = all_pages!(connection, limit, tokens, |page_size, page_token| {
        client.list_tokens(v1::ListTokensRequest { page_size, page_token: page_token.clone() })
    });
    out.show(
        || Value::Array(tokens.iter().map(json::token).collect()),
        |out| {
            let row = |token: &v1::Token| -> Vec<Cell> {
                vec![
                    token.id.as_str().into(),
                    format!("{}/{}", token.used, token.uses).into(),
                    time_text(token.create_time.as_ref()).into(),
                    time_text(token.expire_time.as_ref()).into(),
                    time_text(token.revoke_time.as_ref()).into(),
                    token.note.as_str().into(),
                ]
            };
            let rows: Vec<_> = tokens.iter().map(row).collect();
            table(out, &["TOKEN", "USED", "MADE", "UNTIL", "REVOKED", "NOTE"], &rows)
        },
    )?;
    Ok(Outcome::Yes)
}

/// Revokes a token.
///
/// # Errors
///
/// When the collector refuses.
pub async fn revoke_token(connection: &Connection, out: Out, id: &str) -> Result<Outcome, Error> {
    let request = v1::RevokeTokenRequest { id: id.to_owned() };
    let answer = connection.admin().revoke_token(request).await.map_err(|status| connection.fault(&status))?;
    let token = answer.into_inner().token.ok_or(Error::Contract("it has no token"))?;
    out.show(|| json::token(&token), |_| format!("revoked token {}\n", safe(id)))?;
    Ok(Outcome::Yes)
}

/// Makes a key here, has its credential issued, and writes both to `file`.
///
/// # Errors
///
/// When the collector refuses or the file cannot be written.
pub async fn create_credential(
    connection: &Connection,
    out: Out,
    role: &str,
    name: &str,
    lifetime: Duration,
    file: &Path,
) -> Result<Outcome, Error> {
    let lifetime_seconds = args::wire_seconds(lifetime).map_err(Error::Usage)?;
    // Said before a credential is issued whose key nobody would have.
    let secret = SecretFile::create(file)?;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    // Of the request only the public key is used; the collector decides everything else.
    let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
    let request = v1::IssueCredentialRequest {
        role: role.to_owned(),
        name: name.to_owned(),
        lifetime_seconds,
        csr: csr.der().to_vec(),
    };
    let answer = connection.admin().issue_credential(request).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let credential = answer.credential.ok_or(Error::Contract("it has no credential"))?;
    let pem = format!("{}{}{}", key.serialize_pem(), answer.certificate_chain_pem, answer.ca_bundle_pem);
    secret.write(pem.as_bytes())?;
    say(&format!("wrote {}: the key in it exists nowhere else", file.display()));
    out.show(
        || json::credential(&credential),
        |_| {
            let mut text = field("credential", &credential.spiffe_id);
            text.push_str(&field("serial", &credential.serial));
            text.push_str(&field("until", &time_text(credential.expire_time.as_ref())));
            text
        },
    )?;
    Ok(Outcome::Yes)
}

/// Prints credentials.
///
/// # Errors
///
/// When the collector does not answer.
pub async fn credentials(connection: &Connection, out: Out, limit: Option<usize>) -> Result<Outcome, Error> {
    let mut client = connection.admin();
    let credentials = all_pages!(connection, limit, credentials, |page_size, page_token| {
        client.list_credentials(v1::ListCredentialsRequest { page_size, page_token: page_token.clone() })
    });
    out.show(
        || Value::Array(credentials.iter().map(json::credential).collect()),
        |out| {
            let row = |credential: &v1::Credential| -> Vec<Cell> {
                vec![
                    credential.serial.as_str().into(),
                    credential.role.as_str().into(),
                    credential.name.as_str().into(),
                    time_text(credential.create_time.as_ref()).into(),
                    time_text(credential.expire_time.as_ref()).into(),
                    time_text(credential.revoke_time.as_ref()).into(),
                ]
            };
            let rows: Vec<_> = credentials.iter().map(row).collect();
            table(out, &["SERIAL", "ROLE", "NAME", "ISSUED", "UNTIL", "REVOKED"], &rows)
        },
    )?;
    Ok(Outcome::Yes)
}

/// Revokes a credential.
///
/// # Errors
///
/// When the collector refuses.
pub async fn revoke_credential(
    connection: &Connection,
    out: Out,
    serial: &str,
    reason: &str,
) -> Result<Outcome, Error> {
    let request = v1::RevokeCredentialRequest { serial: serial.to_owned(), reason: reason.to_owned() };
    let answer = connection.admin().revoke_credential(request).await.map_err(|status| connection.fault(&status))?;
    let credential = answer.into_inner().credential.ok_or(Error::Contract("it has no credential"))?;
    out.show(|| json::credential(&credential), |_| format!("revoked credential {}\n", safe(serial)))?;
    Ok(Outcome::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_file_is_toml_whatever_its_values_are() {
        let text = enroll_file("https://c1:7443", "to\"ken\n\\", "sha256:00");
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["collector"].as_str(), Some("https://c1:7443"));
        assert_eq!(parsed["token"].as_str(), Some("to\"ken\n\\"));
        assert_eq!(parsed["ca_pin"].as_str(), Some("sha256:00"));
    }
}
