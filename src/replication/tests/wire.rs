//! Frames in flight between nodes, and what a scenario does to them.

use super::*;

/// A message in flight.
pub(super) struct Frame {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) message: Message,
}

impl Frame {
    pub(super) fn goes(&self, from: usize, to: usize) -> bool {
        (self.from, self.to) == (from, to)
    }

    pub(super) fn body(&self) -> Option<&Body> {
        if let Message::Group { body, .. } = &self.message { Some(body) } else { None }
    }

    pub(super) fn is_append(&self) -> bool {
        matches!(self.body(), Some(Body::Append { .. }))
    }

    /// An `Append` without entries, which only announces the commit index.
    pub(super) fn is_commit_only(&self) -> bool {
        matches!(self.body(), Some(Body::Append { entries, .. }) if entries.is_empty())
    }

    pub(super) fn is_chunk(&self) -> bool {
        matches!(self.body(), Some(Body::SnapshotChunk { .. }))
    }
}

impl Cluster {
    /// Cuts a node off from all others, both ways.
    pub(super) fn isolate(&mut self, node: usize) {
        let others = (0..self.nodes.len()).filter(|&other| other != node);
        self.cut.extend(others.flat_map(|other| [(node, other), (other, node)]));
    }

    /// Delivers frames until all that are left are held back.
    pub(super) fn deliver(&mut self) {
        while let Some(at) = self.wire.iter().position(|frame| !(self.holds_back)(frame)) {
            let Frame { from, to, message } = self.wire.remove(at);
            if self.cut.contains(&(from, to)) || !self.nodes[to].is_up {
                continue;
            }
            let (from, now, mut actions) = (self.nodes[from].identity, self.clock(to), Vec::new());
            let Node { replication, store, .. } = &mut self.nodes[to];
            replication.receive(from, message, now, store, &mut actions);
            replication.flush(now, store, &mut actions);
            self.dispatch(to, actions);
        }
    }

    /// Holds back such frames from now on.
    pub(super) fn hold_back(&mut self, such: fn(&Frame) -> bool) {
        self.holds_back = such;
    }

    /// Delivers what was held back.
    pub(super) fn release(&mut self) {
        self.hold_back(|_| false);
        self.deliver();
    }

    pub(super) fn dispatch(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message } => {
                    let to = self.nodes.iter().position(|other| other.identity == to).expect("a node");
                    self.wire.push(Frame { from: node, to, message });
                }
                Action::Propose(change) => self.proposed.push(change),
                Action::Emptied { .. } => panic!("a primary lost its data"),
                Action::Answer { ticket, answer } => {
                    let fate = if answer == Answer::Done { Fate::Done } else { Fate::Unknown };
                    self.asked[ticket as usize].fate = fate;
                }
            }
        }
    }
}
