//! What stands in a settings file or a profile: settings that the node can start with, or one line that says why not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion::config::{Config, ConfigError, Machine, from_toml};
use pinion::engine;

fuzz_target!(|text: &str| {
    for forbidden in [&["config"][..], &["config", "profile"]] {
        match from_toml(text, "file", forbidden) {
            Ok(options) => {
                for machine in machines() {
                    match Config::new(&options, &machine) {
                        Ok(config) => check(&config, &machine),
                        Err(error) => says_one_line(&error),
                    }
                }
            }
            Err(error) => says_one_line(&error),
        }
    }
});

fn machines() -> [Machine; 3] {
    [
        Machine { cores: vec![0, 1, 4], memory_bytes: Some(8 << 30), open_files: 20_000 },
        Machine { cores: vec![7], memory_bytes: None, open_files: 1024 },
        Machine { cores: (0..2048).collect(), memory_bytes: Some(1 << 60), open_files: u64::MAX },
    ]
}

fn says_one_line(ConfigError(line): &ConfigError) {
    assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
}

/// What the parts that are started with these settings assert or rely on.
fn check(config: &Config, machine: &Machine) {
    assert!(!config.shard_cores.is_empty() && config.shard_cores.iter().all(|core| machine.cores.contains(core)));
    let memory_bytes = config.shard_memory_bytes();
    assert!((engine::MEMORY_BYTES_MIN..=engine::MEMORY_BYTES_MAX).contains(&memory_bytes), "{config:?}");
    assert!(u64::from(config.max_item_bytes) <= engine::value_bytes_max(memory_bytes), "{config:?}");
    assert!(config.max_connections > 0 && config.receive_buffers.is_power_of_two(), "{config:?}");
    let last_port = usize::from(config.shard_ports) + config.shard_cores.len() - 1;
    assert!(config.shard_ports == 0 || last_port <= usize::from(u16::MAX), "{config:?}");
    for warning in &config.warnings {
        assert!(!warning.contains(char::is_control), "{warning:?}");
    }
}
