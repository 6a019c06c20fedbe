//! A replica of a demo, as a process or as a container.

use anyhow::Result;
#[cfg(feature = "docker")]
use devstack::docker::{docker, kill};

#[cfg(feature = "docker")]
use crate::system::Deployed;
use crate::system::{Replica, Service, System};

pub(super) enum Member<'a> {
    Process {
        replica: Box<Replica>,
        system: &'a System,
    },
    #[cfg(feature = "docker")]
    Container {
        name: String,
        service: Service,
        nth: usize,
        deployed: &'a Deployed,
    },
}

impl<'a> Member<'a> {
    pub(super) fn processes(replicas: Vec<Replica>, system: &'a System) -> Vec<Self> {
        replicas
            .into_iter()
            .map(|replica| Self::Process { replica: Box::new(replica), system })
            .collect()
    }

    #[cfg(feature = "docker")]
    pub(super) fn containers(deployed: &'a Deployed) -> Vec<Self> {
        let container = |(service, nth)| Self::Container {
            name: deployed.container(service, nth),
            service,
            nth,
            deployed,
        };
        deployed.replicas().map(container).collect()
    }

    pub(super) fn service(&self) -> Service {
        match self {
            Self::Process { replica, .. } => replica.service(),
            #[cfg(feature = "docker")]
            Self::Container { service, .. } => *service,
        }
    }

    /// Pauses it: it holds everything it has, and does nothing.
    pub(super) async fn pause(&mut self) -> Result<()> {
        match self {
            Self::Process { replica, .. } => replica.pause(),
            #[cfg(feature = "docker")]
            Self::Container { name, .. } => docker(&["pause", name]).await?.success().map(drop),
        }
    }

    pub(super) async fn resume(&mut self) -> Result<()> {
        match self {
            Self::Process { replica, .. } => replica.resume(),
            #[cfg(feature = "docker")]
            Self::Container { name, .. } => docker(&["unpause", name]).await?.success().map(drop),
        }
    }

    /// Kills it with -9 and starts it again at once with its instance id.
    pub(super) async fn kill_and_start(&mut self) -> Result<()> {
        match self {
            Self::Process { replica, system } => {
                replica.kill().await?;
                **replica = system.start(replica.service(), replica.name()).await?;
            }
            #[cfg(feature = "docker")]
            Self::Container { name, .. } => {
                kill(name).await?;
                docker(&["start", name]).await?.success()?;
            }
        }
        Ok(())
    }

    pub(super) async fn ready(&mut self) -> Result<()> {
        match self {
            Self::Process { replica, .. } => replica.wait_ready().await,
            #[cfg(feature = "docker")]
            Self::Container { service, nth, deployed, .. } => {
                deployed.until_ready(*service, *nth).await
            }
        }
    }

    /// Stops a process; containers stop with their deployment.
    pub(super) async fn stop(&mut self) -> Result<()> {
        match self {
            Self::Process { replica, .. } => replica.stop().await,
            #[cfg(feature = "docker")]
            Self::Container { .. } => Ok(()),
        }
    }
}
