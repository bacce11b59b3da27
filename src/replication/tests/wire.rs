//! What is on its way between nodes, and what a story does to it.

use super::*;

/// A message on its way.
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

    /// What a primary sends to say no more than what is committed.
    pub(super) fn is_news(&self) -> bool {
        matches!(self.body(), Some(Body::Append { entries, .. }) if entries.is_empty())
    }

    pub(super) fn is_chunk(&self) -> bool {
        matches!(self.body(), Some(Body::SnapshotChunk { .. }))
    }
}

impl Cluster {
    /// Nobody hears a node, and it hears nobody.
    pub(super) fn isolate(&mut self, node: usize) {
        let others = (0..self.nodes.len()).filter(|&other| other != node);
        self.cut.extend(others.flat_map(|other| [(node, other), (other, node)]));
    }

    /// Delivers frames until those that are left are held back.
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

    /// From now on such frames stay on the wire.
    pub(super) fn hold_back(&mut self, such: fn(&Frame) -> bool) {
        self.holds_back = such;
    }

    /// What was held back arrives.
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
                Action::Emptied { .. } => panic!("a primary without its data"),
                Action::Answer { ticket, answer } => {
                    let fate = if answer == Answer::Done { Fate::Done } else { Fate::Unknown };
                    self.asked[ticket as usize].fate = fate;
                }
            }
        }
    }
}
