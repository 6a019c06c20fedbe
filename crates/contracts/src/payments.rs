//! What the payment service publishes, on the topic `payments`.

use apache_avro::AvroSchema;
use reel::model::{Key, Keyed};
use serde::{Deserialize, Serialize};

use crate::symbols::symbols;
use crate::{CustomerId, DepositId, Line, Money, OrderId, RequestHash};

/// The money for the order was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct PaymentCompleted {
    /// The order.
    pub order_id: OrderId,
    /// From whose account.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
    /// The order's lines: what inventory has to take.
    pub lines: Vec<Line>,
}

/// The money for the order was not taken and will not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct PaymentFailed {
    /// The order.
    pub order_id: OrderId,
    /// From whose account.
    pub customer: CustomerId,
    /// How much it would have been.
    pub amount: Money,
    /// Why not.
    pub reason: PaymentFailure,
}

/// The money taken for the order was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// To whose account.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
}

/// A customer paid money into an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct AccountCredited {
    /// The deposit.
    pub deposit_id: DepositId,
    /// Whose account.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
    /// Of the request that paid it in.
    pub request_hash: RequestHash,
}

symbols! {
    /// Why money was not taken.
    pub enum PaymentFailure {
        /// A reason that this version does not know.
        Unknown = "unknown",
        /// The customer has no account.
        UnknownAccount = "unknown_account",
        /// The account does not hold as much.
        InsufficientFunds = "insufficient_funds",
        /// The account is in another currency.
        WrongCurrency = "wrong_currency",
    }
}

reel::events! {
    /// What the payment service publishes.
    pub enum PaymentEvent on "payments" {
        PaymentCompleted: ["../../../schemas/payment/PaymentCompleted.v1.avsc"],
        PaymentFailed: ["../../../schemas/payment/PaymentFailed.v1.avsc"],
        PaymentRefunded: ["../../../schemas/payment/PaymentRefunded.v1.avsc"],
        AccountCredited: ["../../../schemas/payment/AccountCredited.v1.avsc"],
    }
}

impl Keyed for PaymentCompleted {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for PaymentFailed {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for PaymentRefunded {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for AccountCredited {
    fn key(&self) -> Key {
        (&self.customer).into()
    }
}
