//! Lines that want in are asked for together: those that come while a script is under way share the next one. In a rush, to call
//! Redis costs more than what the script does.

use std::collections::BTreeMap;

use domain_types::Sku;
use tokio::sync::{mpsc, oneshot};

use super::scripts::{self, Admitted, Ask};
use crate::redis::{Redis, RedisAway};

/// Most lines of one script: Redis does nothing else meanwhile.
const MOST_LINES: usize = 64;
/// Lines that may wait for the next script; more wait for a place.
const WAITING_LINES: usize = 4_096;

type Reply = oneshot::Sender<Result<Admitted, RedisAway>>;

/// The way in.
#[derive(Debug)]
pub(super) struct Asks {
    redis: Redis,
    queue: mpsc::Sender<(Ask, Reply)>,
}

impl Asks {
    /// Starts asking, until the returned value is gone. Needs a Tokio runtime.
    pub(super) fn start(redis: Redis) -> Self {
        let (queue, mut waiting) = mpsc::channel(WAITING_LINES);
        let asked = redis.clone();
        tokio::spawn(async move {
            let mut lines = Vec::with_capacity(MOST_LINES);
            while waiting.recv_many(&mut lines, MOST_LINES).await > 0 {
                let scripts = together(&mut lines, asked.is_cluster());
                futures::future::join_all(scripts.into_iter().map(|lines| ask(&asked, lines))).await;
            }
        });
        Self { redis, queue }
    }

    /// What a line is told.
    ///
    /// # Errors
    /// If Redis does not answer. The line may have got a ticket.
    pub(super) async fn admit(&self, ask: Ask) -> Result<Admitted, RedisAway> {
        // Nobody waits behind the one script that looks whether Redis is back.
        if self.redis.is_left_alone() {
            return Err(RedisAway);
        }
        let (reply, answer) = oneshot::channel();
        self.queue.send((ask, reply)).await.map_err(|_ended| RedisAway)?;
        answer.await.unwrap_or(Err(RedisAway))
    }
}

/// The lines of each script: one for all, in a cluster one for each sku.
fn together(lines: &mut Vec<(Ask, Reply)>, is_cluster: bool) -> Vec<Vec<(Ask, Reply)>> {
    if !is_cluster {
        return vec![std::mem::take(lines)];
    }
    let mut by_sku: BTreeMap<Sku, Vec<(Ask, Reply)>> = BTreeMap::new();
    for (ask, reply) in lines.drain(..) {
        by_sku.entry(ask.sku().clone()).or_default().push((ask, reply));
    }
    by_sku.into_values().collect()
}

async fn ask(redis: &Redis, lines: Vec<(Ask, Reply)>) {
    let (asks, replies): (Vec<Ask>, Vec<Reply>) = lines.into_iter().unzip();
    // Without an answer the replies are dropped, which says so.
    let Ok(answers) = scripts::admit(redis, &asks).await else { return };
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _client_hung_up = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use domain_types::{CustomerId, OrderId, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::admission::scripts::{Asking, Told};

    #[test]
    fn lines_go_together_and_in_a_cluster_those_of_each_sku() {
        let names = |is_cluster| {
            let mut lines: Vec<(Ask, Reply)> = ["A", "B", "A"]
                .map(|name| {
                    let asking = Asking {
                        sku: &Sku::new(name).unwrap(),
                        units: 1,
                        order_id: OrderId(Uuid::nil()),
                        customer_id: CustomerId(Uuid::nil()),
                        request: Uuid::nil(),
                        fingerprint: "",
                        deadline: Timestamp::from_millis(0),
                    };
                    (Ask::new(&asking, Timestamp::from_millis(0), &Told::default()), oneshot::channel().0)
                })
                .into();
            let scripts = together(&mut lines, is_cluster);
            let names = |lines: &Vec<(Ask, Reply)>| lines.iter().map(|(ask, _)| ask.sku().as_str()).collect();
            scripts.iter().map(names).collect::<Vec<String>>()
        };
        assert_eq!(names(false), ["ABA"]);
        assert_eq!(names(true), ["AA", "B"]);
    }
}
