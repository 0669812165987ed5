//! Settings that require authentication, authorization or encryption.
//!
//! None of the three is supported yet. A broker that ignored such a setting would be open to everyone although its operator believes the
//! opposite, so each of them prevents the start. `--ignore-security-settings` accepts an open broker.

use super::Error;
use crate::partition::kafka_settings;

/// The protection that a setting requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    Authentication,
    Authorization,
    Encryption,
}

impl Protection {
    fn name(self) -> &'static str {
        match self {
            Protection::Authentication => "authentication (SASL)",
            Protection::Authorization => "authorization (ACLs)",
            Protection::Encryption => "encryption (TLS)",
        }
    }
}

/// Names with the protection that they require; a name that ends in a dot is a prefix. In this order: Kafka's own, those of Bitnami's
/// image (`KAFKA_CLIENT_USERS` is `client.users`), those of Confluent's, and those of Redpanda (`--set redpanda.enable_sasl=true`).
const ASKING: &[(&str, Protection)] = &[
    ("allow.everyone.if.no.acl.found", Protection::Authorization),
    ("authorizer.class.name", Protection::Authorization),
    ("delegation.token.master.key", Protection::Authentication),
    ("delegation.token.secret.key", Protection::Authentication),
    ("principal.builder.class", Protection::Authentication),
    ("sasl.", Protection::Authentication),
    ("security.inter.broker.protocol", Protection::Authentication),
    ("security.providers", Protection::Encryption),
    ("ssl.", Protection::Encryption),
    ("super.users", Protection::Authorization),
    ("certificate.password", Protection::Encryption),
    ("client.passwords", Protection::Authentication),
    ("client.users", Protection::Authentication),
    ("controller.password", Protection::Authentication),
    ("controller.user", Protection::Authentication),
    ("inter.broker.password", Protection::Authentication),
    ("inter.broker.user", Protection::Authentication),
    ("tls.", Protection::Encryption),
    ("confluent.authorizer.", Protection::Authorization),
    ("redpanda.admin_api_require_auth", Protection::Authentication),
    ("redpanda.enable_sasl", Protection::Authentication),
    ("redpanda.kafka_api_tls", Protection::Encryption),
    ("redpanda.kafka_enable_authorization", Protection::Authorization),
    ("redpanda.superusers", Protection::Authorization),
];
/// The prefix of Kafka's settings of one listener: `listener.name.NAME.ssl.keystore.location`, `listener.name.NAME.scram-sha-256.sasl.jaas.config`.
const OF_A_LISTENER: &str = "listener.name.";
/// Values that require no protection: they are the defaults, or they turn the protection off.
const ASKING_FOR_NOTHING: &[(&str, &[&str])] = &[
    ("allow.everyone.if.no.acl.found", &["true"]),
    ("sasl.enabled.mechanisms", &["GSSAPI"]),
    ("sasl.mechanism.controller.protocol", &["GSSAPI"]),
    ("sasl.mechanism.inter.broker.protocol", &["GSSAPI"]),
    ("security.inter.broker.protocol", &["PLAINTEXT"]),
    ("ssl.client.auth", &["none"]),
    ("ssl.enabled.protocols", &["TLSv1.2,TLSv1.3"]),
    ("ssl.endpoint.identification.algorithm", &["https"]),
    ("ssl.keystore.type", &["JKS"]),
    ("ssl.protocol", &["TLSv1.3"]),
    ("ssl.truststore.type", &["JKS"]),
    ("tls.client.auth", &["none", "required"]),
    ("tls.type", &["JKS"]),
    ("redpanda.admin_api_require_auth", &["false"]),
    ("redpanda.enable_sasl", &["false"]),
    ("redpanda.kafka_api_tls", &["[]"]),
    ("redpanda.kafka_enable_authorization", &["false", "null"]),
    ("redpanda.superusers", &["[]"]),
];
/// Environment variables that are not settings of the broker and require authentication: always, or if the value contains the second text.
const ASKING_VARIABLES: &[(&str, &str)] =
    &[("RP_BOOTSTRAP_USER", ""), ("KAFKA_OPTS", "java.security.auth.login.config"), ("KAFKA_JAAS_CONFIG", "")];
/// Parts of names whose values are secret.
const SECRETS: &[&str] = &["password", "passphrase", "secret", "jaas", "ssl.keystore.key", "assertion.private.key"];

/// A setting that requires an unsupported protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unprotected {
    /// The setting or variable.
    pub(super) name: String,
    /// The file, the environment or the flags.
    pub(super) source: String,
    protection: Protection,
}

impl Unprotected {
    /// The error that prevents the start.
    pub(super) fn error(&self) -> Error {
        Error::Unprotected { name: self.name.clone(), source_name: self.source.clone(), protection: self.protection.name() }
    }
}

/// All settings (name, source, value) and environment variables that require a protection.
pub(super) fn unprotected(settings: &[(String, String, String)], variables: &[(String, String)]) -> Vec<Unprotected> {
    let of_settings = settings.iter().filter_map(|(name, source, value)| {
        let protection = protection(name, value)?;
        Some(Unprotected { name: name.clone(), source: source.clone(), protection })
    });
    let of_variables = variables.iter().filter(|(name, value)| {
        let asks = |(asking, word): &(&str, &str)| name == asking && value.contains(word) && !value.trim().is_empty();
        ASKING_VARIABLES.iter().any(asks)
    });
    let of_variables = of_variables.map(|(name, _)| Unprotected {
        name: name.clone(),
        source: "the environment".into(),
        protection: Protection::Authentication,
    });
    of_settings.chain(of_variables).collect()
}

/// Whether the value of a setting must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|part| name.contains(part))
}

fn protection(name: &str, value: &str) -> Option<Protection> {
    let value = value.trim();
    let means_nothing = |(harmless, values): &(&str, &[&str])| *harmless == name && values.iter().any(|v| v.eq_ignore_ascii_case(value));
    let is_kafkas_default = || kafka_settings().iter().any(|known| known.setting.name == name && known.default == Some(value));
    let is_off = name.ends_with(".enabled") && value.eq_ignore_ascii_case("false");
    if value.is_empty() || is_off || ASKING_FOR_NOTHING.iter().any(means_nothing) || is_kafkas_default() {
        return None;
    }
    if let Some(rest) = name.strip_prefix(OF_A_LISTENER) {
        let parts: Vec<&str> = rest.split('.').skip(1).collect();
        let protection = match () {
            () if parts.contains(&"ssl") => Protection::Encryption,
            () if parts.contains(&"sasl") || parts.contains(&"principal") => Protection::Authentication,
            () => return None,
        };
        return Some(protection);
    }
    let asks = |(asking, _): &&(&str, Protection)| if asking.ends_with('.') { name.starts_with(asking) } else { name == *asking };
    ASKING.iter().find(asks).map(|(_, protection)| *protection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_ask_for_protection_are_found_and_their_defaults_are_not() {
        for (name, value, expected) in [
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer", Some(Protection::Authorization)),
            ("authorizer.class.name", " ", None),
            ("super.users", "User:admin", Some(Protection::Authorization)),
            ("allow.everyone.if.no.acl.found", "FALSE", Some(Protection::Authorization)),
            ("allow.everyone.if.no.acl.found", "true", None),
            ("sasl.enabled.mechanisms", "PLAIN", Some(Protection::Authentication)),
            ("sasl.enabled.mechanisms", "GSSAPI", None),
            ("ssl.keystore.filename", "broker.jks", Some(Protection::Encryption)),
            ("ssl.endpoint.identification.algorithm", "", None),
            ("ssl.client.auth", "none", None),
            ("security.inter.broker.protocol", "SASL_PLAINTEXT", Some(Protection::Authentication)),
            ("security.inter.broker.protocol", "PLAINTEXT", None),
            ("listener.name.outside.ssl.client.auth", "required", Some(Protection::Encryption)),
            ("listener.name.outside.plain.sasl.jaas.config", "x", Some(Protection::Authentication)),
            ("listener.name.outside.max.connections", "3", None),
            ("listener.name.ssl.max.connections", "3", None),
            ("client.users", "me", Some(Protection::Authentication)),
            ("redpanda.enable_sasl", "true", Some(Protection::Authentication)),
            ("redpanda.enable_sasl", "false", None),
            ("zookeeper.sasl.enabled", "false", None),
            ("num.partitions", "3", None),
        ] {
            assert_eq!(protection(name, value), expected, "{name}={value}");
        }
    }

    #[test]
    fn variables_of_other_images_ask_too() {
        let variables = [
            ("KAFKA_OPTS", "-Djava.security.auth.login.config=/etc/kafka/jaas.conf"),
            ("RP_BOOTSTRAP_USER", "admin:admin"),
            ("KAFKA_HEAP_OPTS", "-Xmx1G"),
        ];
        let variables: Vec<_> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let names: Vec<_> = unprotected(&[], &variables).into_iter().map(|u| u.name).collect();
        assert_eq!(names, ["KAFKA_OPTS", "RP_BOOTSTRAP_USER"]);
        assert!(unprotected(&[], &[("KAFKA_OPTS".into(), "-Dx=y".into())]).is_empty());
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        assert!(["ssl.key.password", "sasl.jaas.config", "client.passwords", "delegation.token.secret.key"].into_iter().all(is_secret));
        assert!(!is_secret("num.partitions"));
    }
}
