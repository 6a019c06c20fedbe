//! What an audit of the order saga reads.

use anyhow::Result;
use inventory::domain::InventoryService;
use order::domain::OrderService;
use payment::domain::PaymentService;
use reel::kafka::RangeReader;
use sqlx::types::chrono::Utc;

use super::Audit;
use crate::audit::{Side, Sources};
use crate::system::Service;

/// The topics and the tables of the three services, as they were read.
#[derive(Debug)]
pub struct Collected {
    /// The order service.
    pub order: Side<OrderService>,
    /// The payment service.
    pub payment: Side<PaymentService>,
    /// The inventory service.
    pub inventory: Side<InventoryService>,
}

impl Sources {
    /// Reads everything and audits it.
    ///
    /// # Errors
    /// If Kafka or Postgres cannot be read.
    pub async fn audit(&self) -> Result<Audit> {
        let collected = self.collect().await?;
        Ok(super::audit(&collected, Utc::now().into()))
    }

    /// Reads the databases, the topics, and then the heads of the databases again.
    ///
    /// This order of reading makes the audit of a running system sound, because causes are read
    /// after their effects: the money and the stock of a confirmed order are in the tables that are
    /// read after the order's, and the order of a payment or of taken stock is in the topic that is
    /// read last.
    ///
    /// # Errors
    /// If Kafka or Postgres cannot be read.
    pub async fn collect(&self) -> Result<Collected> {
        let order = self.tables::<OrderService>(Service::ORDER).await?;
        let payment = self.tables::<PaymentService>(Service::PAYMENT).await?;
        let inventory = self.tables::<InventoryService>(Service::INVENTORY).await?;

        let reader = RangeReader::new(self.kafka.clone());
        let inventory = self.side(&reader, Service::INVENTORY, inventory).await?;
        let payment = self.side(&reader, Service::PAYMENT, payment).await?;
        let order = self.side(&reader, Service::ORDER, order).await?;

        // Its consumers take most of a second to close, which nobody needs to wait for.
        std::thread::spawn(move || drop(reader));
        Ok(Collected { order, payment, inventory })
    }
}
