//! The stack of a demo: one that exists, or its own, which ends with it.

use anyhow::Result;
use devstack::{OwnStack, Stack, folders};

pub(super) struct Servers {
    stack: Stack,
    /// The demo's own servers, which stop when this value is dropped.
    own: Option<OwnStack>,
}

impl Servers {
    /// Returns the stack that the environment names, or else the one that runs, or else a new one.
    /// A new one that is to be kept is the shared stack.
    pub(super) async fn find(keep: bool) -> Result<Self> {
        let found = match Stack::given().await? {
            Some(given) => Some(given),
            None => Stack::running_in(&folders::data()?)?,
        };
        if let Some(stack) = found {
            return Ok(Self { stack, own: None });
        }
        super::log("kafka and postgres start");
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
