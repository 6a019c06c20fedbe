//! The stack of a demo: one that is there, or one of its own that ends with it.

use anyhow::Result;
use devstack::{OwnStack, Stack, folders};

pub(super) struct Servers {
    stack: Stack,
    /// Dropped with this value, and so stopped.
    own: Option<OwnStack>,
}

impl Servers {
    /// The stack that the environment names, that runs, or a new one; a new one that is to be kept is the shared one.
    pub(super) async fn find(keep: bool) -> Result<Self> {
        let found = match Stack::given().await? {
            Some(given) => Some(given),
            None => Stack::running_in(&folders::data()?)?,
        };
        if let Some(stack) = found {
            return Ok(Self { stack, own: None });
        }
        super::say("kafka and postgres start");
        if keep {
            return Ok(Self { stack: Stack::shared().await?, own: None });
        }
        let own = OwnStack::start().await?;
        Ok(Self { stack: own.stack(), own: Some(own) })
    }

    pub(super) fn stack(&self) -> &Stack {
        &self.stack
    }

    pub(super) fn are_own(&self) -> bool {
        self.own.is_some()
    }
}
