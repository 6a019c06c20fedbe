//! What the payment service publishes, on the topic `payments`.

use apache_avro::AvroSchema;
use reel_core::model::{Key, Keyed};
use serde::{Deserialize, Serialize};

use crate::symbols::symbols;
use crate::{CustomerId, DepositId, Line, Money, OrderId, RequestHash};

/// The money for the order was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct PaymentCompleted {
    pub order_id: OrderId,
    /// The customer whose account pays.
    pub customer: CustomerId,
    /// The order's total.
    pub amount: Money,
    /// The order's lines: what inventory takes.
    pub lines: Vec<Line>,
}

/// The money for the order was not taken and will not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct PaymentFailed {
    pub order_id: OrderId,
    /// The customer whose account would have paid.
    pub customer: CustomerId,
    /// The order's total.
    pub amount: Money,
    /// Why it was not taken.
    pub reason: PaymentFailure,
}

/// The money taken for the order was refunded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct PaymentRefunded {
    pub order_id: OrderId,
    /// The customer whose account it was returned to.
    pub customer: CustomerId,
    /// The order's total.
    pub amount: Money,
}

/// A customer paid money into an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct AccountCredited {
    pub deposit_id: DepositId,
    /// The owner of the account.
    pub customer: CustomerId,
    /// The amount, above zero.
    pub amount: Money,
    /// Hash of the request.
    pub request_hash: RequestHash,
}

symbols! {
    /// Why money was not taken.
    pub enum PaymentFailure {
        /// A reason that this version does not know.
        Unknown = "unknown",
        /// The customer has no account.
        UnknownAccount = "unknown_account",
        /// The account's balance is too low.
        InsufficientFunds = "insufficient_funds",
        /// The account is in another currency.
        WrongCurrency = "wrong_currency",
        /// The order's deadline had passed.
        TooLate = "too_late",
    }
}

reel_core::events! {
    /// What the payment service publishes.
    pub enum PaymentEvent on "payments" {
        PaymentCompleted: ["../../../schemas/payment/PaymentCompleted.v1.avsc"],
        PaymentFailed: [
            "../../../schemas/payment/PaymentFailed.v1.avsc",
            "../../../schemas/payment/PaymentFailed.v2.avsc",
        ],
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
