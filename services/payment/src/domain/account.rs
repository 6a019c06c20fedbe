//! Accounts and what is paid into them.

use contracts::payments::{AccountCredited, PaymentEvent};
use contracts::{Currency, CustomerId, DepositId, Money, RequestHash};
use serde::{Deserialize, Serialize};

use super::Payments;

/// What a customer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Of all its amounts: that of the first deposit.
    pub currency: Currency,
    /// Everything that was ever paid in.
    pub deposited: i64,
    /// What is left: what was paid in, without what orders hold.
    pub balance: i64,
}

/// What was paid in at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// Whose account.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
    /// Of the request that paid it in.
    pub request_hash: RequestHash,
}

/// What the payment service can be asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum PaymentCommand {
    /// A customer pays money in.
    Deposit {
        /// The deposit, by customer and `Idempotency-Key`.
        deposit_id: DepositId,
        /// Whose account.
        customer: CustomerId,
        /// How much: above zero.
        amount: Money,
        /// Of the request.
        request_hash: RequestHash,
    },
}

/// Why the payment service refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentRejection {
    /// The `Idempotency-Key` belongs to another request.
    #[error("the key was used for another deposit")]
    KeyReused,
    /// Nothing, or less, would be paid in.
    #[error("the amount is not above zero")]
    NotPositive,
    /// The account is in another currency.
    #[error("the account is in {0}")]
    WrongCurrency(Currency),
    /// The account would hold more than an amount can.
    #[error("the account would hold more than an amount can")]
    TooMuch,
}

/// Amounts are only added, so that partitions may be folded in any order (law 6). Halfway through such a fold a sum may
/// be below zero or out of range; adding in a circle, the whole of it comes out right all the same.
pub(super) fn evolve(state: &mut Payments, event: &PaymentEvent) {
    let (customer, amount, deposited, balance) = match event {
        PaymentEvent::PaymentCompleted(e) => (&e.customer, e.amount, 0, e.amount.amount.wrapping_neg()),
        PaymentEvent::PaymentRefunded(e) => (&e.customer, e.amount, 0, e.amount.amount),
        PaymentEvent::AccountCredited(e) => (&e.customer, e.amount, e.amount.amount, e.amount.amount),
        PaymentEvent::PaymentFailed(_) => return,
    };
    let nothing = || Account { currency: amount.currency, deposited: 0, balance: 0 };
    let account = state.accounts.entry_or(customer.clone(), nothing);
    account.deposited = account.deposited.wrapping_add(deposited);
    account.balance = account.balance.wrapping_add(balance);
    if let PaymentEvent::AccountCredited(e) = event {
        let deposit = Deposit { customer: e.customer.clone(), amount, request_hash: e.request_hash.clone() };
        state.deposits.put(e.deposit_id, deposit);
    }
}

pub(super) fn decide(state: &Payments, command: &PaymentCommand) -> Result<Option<PaymentEvent>, PaymentRejection> {
    let PaymentCommand::Deposit { deposit_id, customer, amount, request_hash } = command;
    if let Some(deposit) = state.deposits.get(deposit_id) {
        return if deposit.request_hash == *request_hash { Ok(None) } else { Err(PaymentRejection::KeyReused) };
    }
    if amount.amount <= 0 {
        return Err(PaymentRejection::NotPositive);
    }
    if let Some(account) = state.accounts.get(customer) {
        if account.currency != amount.currency {
            return Err(PaymentRejection::WrongCurrency(account.currency));
        }
        // The balance is never above what was deposited, so it fits too, even when every order is undone.
        account.deposited.checked_add(amount.amount).ok_or(PaymentRejection::TooMuch)?;
    }
    let credited =
        AccountCredited { deposit_id: *deposit_id, customer: customer.clone(), amount: *amount, request_hash: request_hash.clone() };
    Ok(Some(credited.into()))
}
