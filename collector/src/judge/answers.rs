//! Answers to directives, for whoever gave them. An agent may name any directive in its reports: what nobody waits for is passed over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use muster_proto::id::AgentId;
use tokio::sync::mpsc;

/// A directive that an agent was given, and its id.
type Asked = (AgentId, u64);

/// The directives that someone waits for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Awaited(Arc<Mutex<HashMap<Asked, mpsc::UnboundedSender<Asked>>>>);

impl Awaited {
    /// Tells those who wait for them that directives were answered.
    pub fn tell(&self, answered: Vec<Asked>) {
        if answered.is_empty() {
            return;
        }
        let mut awaited = self.lock();
        for answer in answered {
            if let Some(waiting) = awaited.remove(&answer) {
                // Whoever waited may have gone, which is no fault.
                let _ = waiting.send(answer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Asked, mpsc::UnboundedSender<Asked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for answers to the directives that it gave, each of which comes once. Dropped, it waits for none.
#[derive(Debug)]
pub struct Answers {
    awaited: Awaited,
    asked: Vec<Asked>,
    sender: mpsc::UnboundedSender<Asked>,
    receiver: mpsc::UnboundedReceiver<Asked>,
}

impl Answers {
    pub(super) fn of(awaited: &Awaited) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { awaited: awaited.clone(), asked: Vec::new(), sender, receiver }
    }

    /// Gives `agent` a directive by `direct`, which returns its id, and waits for the answer from then on, so that none is missed.
    ///
    /// # Errors
    ///
    /// Those of `direct`; nothing is waited for then.
    pub fn ask<E>(&mut self, agent: AgentId, direct: impl FnOnce() -> Result<u64, E>) -> Result<u64, E> {
        let mut awaited = self.awaited.lock();
        let id = direct()?;
        awaited.insert((agent, id), self.sender.clone());
        self.asked.push((agent, id));
        Ok(id)
    }

    /// Returns the next directive that was answered.
    pub async fn next(&mut self) -> Option<(AgentId, u64)> {
        self.receiver.recv().await
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut awaited = self.awaited.lock();
        self.asked.iter().for_each(|asked| drop(awaited.remove(asked)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_is_told_and_each_answer_once_to_the_one_who_asked() {
        let (mine, other) = (AgentId::new([1; 16]), AgentId::new([2; 16]));
        let awaited = Awaited::default();
        let (mut first, mut second) = (Answers::of(&awaited), Answers::of(&awaited));
        first.ask(mine, || Ok::<_, ()>(7)).unwrap();
        second.ask(other, || Ok::<_, ()>(8)).unwrap();
        assert_eq!(second.ask(mine, || Err("gone")), Err("gone"));
        awaited.tell((0..100_000).map(|made_up| (other, 100 + made_up)).chain([(other, 7), (mine, 8)]).collect());
        assert!(first.receiver.try_recv().is_err() && second.receiver.try_recv().is_err());
        awaited.tell(vec![(mine, 7), (mine, 7)]);
        assert_eq!(first.receiver.try_recv(), Ok((mine, 7)));
        assert!(first.receiver.try_recv().is_err());
        drop(second);
        assert!(awaited.lock().is_empty());
    }
}
