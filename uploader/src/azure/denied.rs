//! What a person can do about a 401 or 403.
//!
//! The service's own words are left out: those of `AuthenticationFailed` hold the signature and the string that was signed.

use super::errors::{Operation, Refusal};

/// What was refused, and what to grant.
pub(super) fn explain(refusal: &Refusal, operation: Operation) -> String {
    let code = refusal.code.as_deref().unwrap_or("no code");
    let clock = refusal.ahead.and_then(clock).unwrap_or_default();
    format!("not allowed to {} ({} {code}): {clock}{}", operation.verb(), refusal.status, advice(code, operation))
}

/// The service takes no signature whose time is 15 minutes off:
/// <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key#specifying-the-date-header>.
fn clock(ahead: i64) -> Option<String> {
    let minutes = ahead.abs() / 60;
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    (minutes >= 5).then(|| format!("this machine's clock is {minutes} min {side} the service's, set it first (NTP); else "))
}

fn advice(code: &str, operation: Operation) -> String {
    match code {
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => {
            "the credential is not taken: a wrong or renewed key, an expired or revoked SAS token, another tenant's token, or a wrong clock"
                .to_owned()
        }
        "AuthorizationFailure" => format!(
            "the credential is wrong or the account's network rules keep this machine out: check the key or SAS token and the \
             account's networking page, or {}",
            grant(operation)
        ),
        "NoAuthenticationInformation" | "PublicAccessNotPermitted" => {
            "the request had no credential that counts: name one for the session".to_owned()
        }
        "AuthorizationSourceIPMismatch" => "the SAS token is for other addresses than this machine's".to_owned(),
        "AuthorizationProtocolMismatch" => "the SAS token is for https only: use an https account URL".to_owned(),
        "AuthorizationServiceMismatch" => "the SAS token is not for the blob service: it needs ss=b".to_owned(),
        "AuthorizationResourceTypeMismatch" => "the SAS token does not cover this kind of object: it needs srt=co".to_owned(),
        "KeyBasedAuthenticationNotPermitted" => {
            "the account takes no key and no SAS token of a key: use a Microsoft Entra identity".to_owned()
        }
        "AccountIsDisabled" => "the storage account is disabled".to_owned(),
        _ => grant(operation),
    }
}

/// Short, because a status has room for 200 characters.
fn grant(operation: Operation) -> String {
    const ROLE: &str = "the role Storage Blob Data Contributor";
    match operation {
        Operation::Look | Operation::Blocks => format!("grant reading: {ROLE}, or sp=r in the SAS token"),
        Operation::PutBlock | Operation::PutBlob | Operation::Commit => format!("grant writing: {ROLE}, or sp=rw in the SAS token"),
        Operation::CreateContainer => format!("grant it: {ROLE} on the account, or an account SAS with srt=co, sp=rw"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(code: &str, operation: Operation) -> String {
        explain(
            &Refusal { status: 403, code: Some(code.to_owned()), detail: Some("sig-secret".to_owned()), ..Refusal::default() },
            operation,
        )
    }

    #[test]
    fn missing_permissions_are_named_for_each_operation() {
        let code = "AuthorizationPermissionMismatch";
        assert!(explained(code, Operation::Look).contains("reading: the role Storage Blob Data Contributor, or sp=r in"));
        assert!(explained(code, Operation::Commit).contains("sp=rw"));
        assert!(explained(code, Operation::CreateContainer).contains("srt=co"));
    }

    #[test]
    fn what_to_do_is_within_what_a_status_holds() {
        for code in ["AuthenticationFailed", "AuthorizationPermissionMismatch", "KeyBasedAuthenticationNotPermitted"] {
            for operation in [Operation::Look, Operation::PutBlock, Operation::Commit, Operation::CreateContainer] {
                let message = explained(code, operation);
                assert!(message.len() <= 200, "{} characters: {message}", message.len());
            }
        }
    }

    #[test]
    fn a_clock_that_is_off_is_named_first_with_its_direction() {
        let explained = |ahead| {
            let code = Some("AuthenticationFailed".to_owned());
            explain(&Refusal { status: 403, code, ahead: Some(ahead), ..Refusal::default() }, Operation::Look)
        };
        assert!(explained(1200).contains("): this machine's clock is 20 min ahead of the service's, set it first (NTP); else the"));
        assert!(explained(-7200).contains("clock is 120 min behind the service's"));
        assert!(!explained(200).contains("NTP"));
    }

    #[test]
    fn a_wrong_key_is_told_from_a_missing_permission_and_the_services_words_are_left_out() {
        let message = explained("AuthenticationFailed", Operation::PutBlock);
        assert!(message.starts_with("not allowed to send a block (403 AuthenticationFailed): the credential is not taken"));
        assert!(message.contains("clock") && !message.contains("sig-secret"), "{message}");
    }
}
