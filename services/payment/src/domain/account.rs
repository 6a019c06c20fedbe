//! Accounts and the deposits into them.

use contracts::payments::{AccountCredited, PaymentEvent};
use contracts::{Currency, CustomerId, DepositId, Money, RequestHash};
use serde::{Deserialize, Serialize};

use super::Payments;

/// A customer's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The currency of all its amounts: that of the first deposit.
    pub currency: Currency,
    /// Sum of all deposits, in minor units.
    pub deposited: i64,
    /// What is left to spend: the deposits minus the payments that were not refunded.
    pub balance: i64,
}

/// A deposit into an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The owner of the account.
    pub customer: CustomerId,
    /// The amount, above zero.
    pub amount: Money,
    /// Hash of the request.
    pub request_hash: RequestHash,
}

/// The commands of the payment service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum PaymentCommand {
    /// Pay money into an account.
    Deposit {
        /// The deposit's id, derived from the customer and the `Idempotency-Key`.
        deposit_id: DepositId,
        /// The owner of the account.
        customer: CustomerId,
        /// The amount, which must be above zero.
        amount: Money,
        /// Hash of the request.
        request_hash: RequestHash,
    },
}

/// Why the payment service rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentRejection {
    /// The `Idempotency-Key` belongs to another request.
    #[error("the key was used for another deposit")]
    KeyReused,
    /// The amount is zero or less.
    #[error("the amount is not above zero")]
    NotPositive,
    /// The account is in another currency.
    #[error("the account is in {0}")]
    WrongCurrency(Currency),
    /// The sum of all deposits would overflow.
    #[error("the account would hold more than an amount can")]
    TooMuch,
}

/// Folds an event into an account. Amounts are only added, so that partitions may be folded in any
/// order (law 6). Halfway through such a fold a sum may be negative or overflow, but wrapping
/// addition is associative and commutative, so the final sum is right.
pub(super) fn evolve(state: &mut Payments, event: &PaymentEvent) {
    let (customer, amount, deposited, balance) = match event {
        PaymentEvent::PaymentCompleted(e) => {
            (&e.customer, e.amount, 0, e.amount.amount.wrapping_neg())
        }
        PaymentEvent::PaymentRefunded(e) => (&e.customer, e.amount, 0, e.amount.amount),
        PaymentEvent::AccountCredited(e) => {
            (&e.customer, e.amount, e.amount.amount, e.amount.amount)
        }
        PaymentEvent::PaymentFailed(_) => return,
    };

    let empty = || Account { currency: amount.currency, deposited: 0, balance: 0 };
    let account = state.accounts.entry_or(customer.clone(), empty);
    account.deposited = account.deposited.wrapping_add(deposited);
    account.balance = account.balance.wrapping_add(balance);

    if let PaymentEvent::AccountCredited(e) = event {
        let deposit =
            Deposit { customer: e.customer.clone(), amount, request_hash: e.request_hash.clone() };
        state.deposits.put(e.deposit_id, deposit);
    }
}

pub(super) fn decide(
    state: &Payments,
    command: &PaymentCommand,
) -> Result<Option<PaymentEvent>, PaymentRejection> {
    let PaymentCommand::Deposit { deposit_id, customer, amount, request_hash } = command;

    // The same key again: a retry has no further effect, another request is rejected.
    if let Some(deposit) = state.deposits.get(deposit_id) {
        return if deposit.request_hash == *request_hash {
            Ok(None)
        } else {
            Err(PaymentRejection::KeyReused)
        };
    }

    if amount.amount <= 0 {
        return Err(PaymentRejection::NotPositive);
    }
    if let Some(account) = state.accounts.get(customer) {
        if account.currency != amount.currency {
            return Err(PaymentRejection::WrongCurrency(account.currency));
        }

        // The balance never exceeds the deposits, so it cannot overflow either, even if every order
        // is refunded.
        account.deposited.checked_add(amount.amount).ok_or(PaymentRejection::TooMuch)?;
    }

    let credited = AccountCredited {
        deposit_id: *deposit_id,
        customer: customer.clone(),
        amount: *amount,
        request_hash: request_hash.clone(),
    };

    Ok(Some(credited.into()))
}
