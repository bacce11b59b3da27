//! The layers below the command line: environment, file, profile. Their keys and values pass one by one through the
//! parser of the flags, so that an error names the key.

use super::{ConfigError, Options};
use clap::{Command, FromArgMatches};
use std::ffi::OsString;
use std::path::Path;

/// Profiles built into the binary, by name.
const PROFILES: [(&str, &str); 3] = [
    ("balanced", include_str!("../../tuning/balanced.toml")),
    ("low-latency", include_str!("../../tuning/low-latency.toml")),
    ("small", include_str!("../../tuning/small.toml")),
];

const PREFIX: &str = "PINION_";

/// Settings that a profile may not contain: a file cannot name another file.
const OUTER_ONLY: [&str; 2] = ["config", "profile"];

/// Merges all layers, the strongest first: `flags`, `environment` (variables whose names start with `PINION_`), file,
/// profile.
///
/// # Errors
/// The variable, or the file and key; the value; and what is allowed.
pub fn resolve(
    flags: Options,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Options, ConfigError> {
    let mut merged = flags;
    let mut variables = Options::default();
    for (name, value) in environment {
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let name = name.to_string_lossy();
        // The value may be a password, so it is not shown.
        let value = value.into_string().map_err(|_| {
            ConfigError(format!("environment: {}: the value is not UTF-8; allowed: UTF-8 text", name.escape_debug()))
        })?;
        let Some(key) = name.strip_prefix(PREFIX).filter(|key| !is_service_link(key, &value)) else { continue };
        let key = key.to_ascii_lowercase().replace('_', "-");
        let known =
            known_keys(&[]).iter().map(|k| format!("{PREFIX}{}", k.to_ascii_uppercase().replace('-', "_"))).collect();
        let place = format!("environment: {}={}", name.escape_debug(), value.escape_debug());
        let set = parse(&key, &value, &[]).map_err(|e| e.at(&place, known))?;
        variables = set.or(variables);
    }
    merged = merged.or(variables);
    if let Some(file) = merged.config.clone() {
        merged = merged.or(read(&file, "--config", &["config"])?);
    }
    if let Some(profile) = merged.profile.clone() {
        let weaker = match PROFILES.iter().find(|(name, _)| *name == profile) {
            Some((name, text)) => from_toml(text, &format!("profile {name}"), &OUTER_ONLY)?,
            None if Path::new(&profile).exists() => read(Path::new(&profile), "--profile", &OUTER_ONLY)?,
            None => {
                let names = PROFILES.map(|(name, _)| name).join(", ");
                return Err(ConfigError(format!(
                    "--profile {profile}: no such profile or file; allowed: {names}, or a file"
                )));
            }
        };
        merged = merged.or(weaker);
    }
    Ok(merged)
}

/// Variables that Kubernetes sets in every container if there is a service called pinion: these are not settings.
fn is_service_link(key: &str, value: &str) -> bool {
    key.starts_with("SERVICE_") || key.starts_with("PORT_") || (key == "PORT" && value.contains("://"))
}

fn read(file: &Path, flag: &str, forbidden: &[&str]) -> Result<Options, ConfigError> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|e| ConfigError(format!("{flag} {shown}: {e}")))?;
    from_toml(&text, &shown.to_string(), forbidden)
}

/// Parses the options of a TOML text, which errors call `name`. Keys in `forbidden` are not accepted.
///
/// # Errors
/// The key or the line, the value, and what is allowed.
pub fn from_toml(text: &str, name: &str, forbidden: &[&str]) -> Result<Options, ConfigError> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        ConfigError(format!("{name}:{line}: {}", e.message().replace('\n', " ")))
    })?;
    let mut options = Options::default();
    for (key, value) in &table {
        let place = format!("{name}: {}", key.escape_debug());
        let shown = plain(value).ok_or_else(|| {
            ConfigError(format!("{place}: allowed: a whole number, a string, true, false, or a list of these"))
        })?;
        let set = parse(key, &shown, forbidden);
        let place = format!("{place} = {}", shown.escape_debug());
        let set = set.map_err(|e| e.at(&place, known_keys(forbidden)))?;
        options = set.or(options);
    }
    Ok(options)
}

/// Formats a value as on the command line.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        toml::Value::Array(values) => values.iter().map(plain).collect::<Option<Vec<_>>>().map(|v| v.join(",")),
        _ => None,
    }
}

enum Wrong {
    Key,
    Value(String),
}

impl Wrong {
    fn at(self, place: &str, known: Vec<String>) -> ConfigError {
        ConfigError(match self {
            Self::Key => format!("{place}: no such setting; allowed: {}", known.join(", ")),
            Self::Value(why) => format!("{place}: {why}"),
        })
    }
}

/// Parses one setting with the parser of the flags.
fn parse(key: &str, value: &str, forbidden: &[&str]) -> Result<Options, Wrong> {
    let command = <Options as clap::Args>::augment_args(Command::new("pinion").no_binary_name(true));
    if forbidden.contains(&key) || !command.get_arguments().any(|a| a.get_long() == Some(key)) {
        return Err(Wrong::Key);
    }
    if key == "verbose" {
        let verbose = value.parse().map_err(|_| Wrong::Value("allowed: 0 to 255".into()))?;
        return Ok(Options { verbose, ..Options::default() });
    }
    let parsed = command.try_get_matches_from([format!("--{key}={value}")]);
    let parsed = parsed.and_then(|matches| Options::from_arg_matches(&matches));
    parsed.map_err(|error| Wrong::Value(cause(&error)))
}

/// The part of clap's message that does not repeat the flag and the value.
fn cause(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(allowed)) => format!("allowed: {}", allowed.join(", ")),
        _ => error.kind().to_string(),
    }
}

fn known_keys(forbidden: &[&str]) -> Vec<String> {
    let command = <Options as clap::Args>::augment_args(Command::new("pinion"));
    let keys = command.get_arguments().filter_map(|a| a.get_long().map(String::from));
    keys.filter(|k| !forbidden.contains(&k.as_str())).collect()
}
