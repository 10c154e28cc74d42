//! `stock-events` into `stock_changes`.

use messaging::{Handler, HandlerError, HandlerFactory, Outputs, Ownership, Received, Record, Tx};
use schemas::{DecodeError, Envelope, StockEvent};

use super::store::{self, Answer};
use crate::products::model::ChangeState;

/// Makes the handler of a partition of `stock-events`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StockChanges;

/// Applies the answers of one partition.
#[derive(Debug)]
pub(crate) struct StockChangesHandler;

impl HandlerFactory for StockChanges {
    type Handler = StockChangesHandler;

    async fn take_over(&self, _ownership: Ownership) -> Result<StockChangesHandler, HandlerError> {
        Ok(StockChangesHandler)
    }
}

impl Handler for StockChangesHandler {
    type Input = Envelope<StockEvent>;

    fn decode(&self, record: &Record) -> Result<Self::Input, DecodeError> {
        Envelope::decode(&record.value)
    }

    async fn handle(
        &mut self,
        tx: &mut Tx,
        batch: &[Received<Self::Input>],
        _outputs: &mut Outputs,
    ) -> Result<(), HandlerError> {
        let mut answers: Vec<Answer> = batch.iter().map(answer).collect();
        // The first answer to a request is the answer; a repeat of it says the same.
        answers.sort_by_key(|answer| answer.change);
        answers.dedup_by(|a, b| a.change == b.change);
        let writer = tx.writer().await?;
        store::save_answers(writer, &answers).await?;
        store::settle_names(writer, &answers).await?;
        Ok(())
    }
}

fn answer(received: &Received<Envelope<StockEvent>>) -> Answer {
    let at = received.record.time;
    match &received.input.message {
        StockEvent::StockChangeApplied(applied) => Answer {
            change: applied.request_id,
            sku: applied.sku.clone(),
            quantity: applied.quantity,
            state: ChangeState::Applied,
            code: None,
            at,
            stock_version: Some(applied.stock_version),
        },
        StockEvent::StockChangeRefused(refused) => Answer {
            change: refused.request_id,
            sku: refused.sku.clone(),
            quantity: refused.quantity,
            state: ChangeState::Refused,
            code: Some(store::code_text(refused.code)),
            at,
            stock_version: None,
        },
    }
}
