//! MEMORY, and the figures of memory that INFO shows too.

use super::{Io, Shard};
use crate::command::{Administration, Args, Command};
use crate::execute::introspect;
use crate::metrics::Counter;
use crate::protocol::resp::Writer;
use crate::shard::SharedState;
use crate::shard::pending::Pending;
use crate::sys;

/// Figures of the node's memory, in bytes.
pub(super) struct Figures {
    /// Pages in use: what counts against the limit.
    pub(super) held: u64,
    /// The highest that this was seen to be.
    pub(super) peak: u64,
    /// What was held before there were any items.
    pub(super) startup: u64,
    /// Keys and values.
    pub(super) dataset: u64,
    /// What is held besides them.
    pub(super) overhead: u64,
    /// What items and the index occupy within the pages.
    pub(super) allocated: u64,
    pub(super) resident: u64,
    pub(super) limit: u64,
    /// Buffers of connections, which are outside of the pages.
    pub(super) clients: u64,
    pub(super) items: u64,
}

impl Figures {
    pub(super) fn of(shared: &SharedState) -> Self {
        let held = shared.sum(Counter::HeldBytes);
        let dataset = shared.sum(Counter::UserBytes);
        Self {
            held,
            peak: shared.note_held_bytes(held),
            startup: shared.startup_bytes(),
            dataset,
            overhead: held.saturating_sub(dataset),
            allocated: shared.sum(Counter::Bytes) + shared.sum(Counter::IndexBytes),
            resident: sys::resident_bytes().unwrap_or(0),
            limit: shared.tunables.memory_bytes(),
            clients: shared.sum(Counter::ClientBufferBytes),
            items: shared.sum(Counter::CurrItems),
        }
    }

    /// The share of keys and values in what is held beyond the start, in percent.
    pub(super) fn dataset_percent(&self) -> f64 {
        percent(self.dataset, self.held.saturating_sub(self.startup)).min(100.0)
    }
}

/// `part` in percent of `whole`.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    ratio(part, whole) * 100.0
}

/// `part` divided by `whole`.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

impl<I: Io> Shard<I> {
    /// MEMORY, except for USAGE, which concerns a key.
    pub(super) fn memory(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let subcommand = match introspect::find_subcommand(Command::Memory.row(), args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(id, |w| w.error(error)),
        };
        if !self.has_all_counters(pending) {
            return;
        }
        if subcommand == "purge" {
            if !self.has_room(0..self.router.shards(), pending) {
                return;
            }
            self.administer_everywhere(Administration::Purge);
            self.io.return_free_memory();
        }
        let figures = Figures::of(&self.shared);
        self.reply(id, |w| match subcommand {
            "doctor" => {
                let percent = |part: u64| percent(part, figures.limit);
                let text = format!(
                    "{:.1} % of the limit is held, {:.1} % of it are keys and values.\n",
                    percent(figures.held),
                    percent(figures.dataset)
                );
                w.verbatim(b"txt", text.as_bytes());
            }
            "malloc-stats" => {
                let Figures { allocated, held, resident, limit, .. } = figures;
                let text = format!(
                    "of {limit} bytes, {held} are in pages in use, {allocated} in items; {resident} are resident\n"
                );
                w.verbatim(b"txt", text.as_bytes());
            }
            "purge" => w.simple("OK"),
            "stats" => statistics(&figures, w),
            _ => introspect::help(Command::Memory.row(), w),
        });
    }
}

/// Replies to MEMORY STATS.
fn statistics(figures: &Figures, w: &mut Writer) {
    let Figures { held, peak, startup, dataset, overhead, allocated, resident, limit, clients, items } = *figures;
    let map = w.begin_map();
    let mut count = 0;
    let mut integers = |w: &mut Writer, figures: &[(&str, u64)]| {
        for (name, value) in figures {
            w.bulk(name.as_bytes());
            w.integer(*value as i64);
        }
        count += figures.len();
    };
    integers(
        w,
        &[
            ("peak.allocated", peak),
            ("total.allocated", held),
            ("startup.allocated", startup),
            ("replication.backlog", 0),
            ("clients.slaves", 0),
            ("clients.normal", clients),
            ("cluster.links", 0),
            ("aof.buffer", 0),
            ("lua.caches", 0),
            ("functions.caches", 0),
            ("overhead.total", overhead),
            ("keys.count", items),
            ("keys.bytes-per-key", held.saturating_sub(startup) / items.max(1)),
            ("dataset.bytes", dataset),
            ("limit", limit),
            ("allocator.allocated", allocated),
            ("allocator.active", held),
            ("allocator.resident", resident),
            ("allocator-fragmentation.bytes", held.saturating_sub(allocated)),
            ("allocator-rss.bytes", resident.saturating_sub(held)),
            ("fragmentation.bytes", resident.saturating_sub(held)),
        ],
    );
    let ratios = [
        ("dataset.percentage", figures.dataset_percent()),
        ("peak.percentage", percent(held, peak)),
        ("allocator-fragmentation.ratio", ratio(held, allocated)),
        ("allocator-rss.ratio", ratio(resident, held)),
        ("fragmentation", ratio(resident, held)),
    ];
    for (name, value) in ratios {
        w.bulk(name.as_bytes());
        w.double(value);
    }
    w.end(map, count + ratios.len());
}
