//! The topics.

/// A topic of the product. Names, keys and clean-up policies are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Every input of a saga; key: order id.
    OrderSaga,
    /// Commands to the stock worker; key: sku.
    StockCommands,
    /// Commands to the payment worker; key: customer id.
    PaymentCommands,
    /// What happened to orders; key: order id.
    OrderEvents,
    /// Answers to admins' changes of stock; key: sku.
    StockEvents,
    /// Product data and stock levels, compacted; key: sku.
    StockLevels,
    /// Records that could not be handled; key: the original one.
    DeadLetters,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 7] = [
        Self::OrderSaga,
        Self::StockCommands,
        Self::PaymentCommands,
        Self::OrderEvents,
        Self::StockEvents,
        Self::StockLevels,
        Self::DeadLetters,
    ];

    /// The topic's name in Kafka.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OrderSaga => "order-saga",
            Self::StockCommands => "stock-commands",
            Self::PaymentCommands => "payment-commands",
            Self::OrderEvents => "order-events",
            Self::StockEvents => "stock-events",
            Self::StockLevels => "stock-levels",
            Self::DeadLetters => "dead-letters",
        }
    }

    /// What a record's key is.
    pub const fn key(self) -> &'static str {
        match self {
            Self::OrderSaga | Self::OrderEvents => "order id",
            Self::StockCommands | Self::StockEvents | Self::StockLevels => "sku",
            Self::PaymentCommands => "customer id",
            Self::DeadLetters => "key of the original record",
        }
    }

    /// Whether Kafka keeps only the newest record of each key. All other topics keep everything for ever:
    /// replay, rebuild and audit need the beginning.
    pub const fn is_compacted(self) -> bool {
        match self {
            Self::StockLevels => true,
            Self::OrderSaga
            | Self::StockCommands
            | Self::PaymentCommands
            | Self::OrderEvents
            | Self::StockEvents
            | Self::DeadLetters => false,
        }
    }

    /// The packages that write it.
    pub const fn written_by(self) -> &'static [&'static str] {
        match self {
            Self::OrderSaga => &["api", "order-orchestrator", "payment-worker", "stock-worker"],
            Self::StockCommands => &["api", "order-orchestrator"],
            Self::PaymentCommands | Self::OrderEvents => &["order-orchestrator"],
            Self::StockEvents | Self::StockLevels => &["stock-worker"],
            Self::DeadLetters => &["api", "order-orchestrator", "payment-worker", "stock-worker"],
        }
    }

    /// The packages that read it. `order-events`, `stock-levels` and `dead-letters` are for others too.
    pub const fn read_by(self) -> &'static [&'static str] {
        match self {
            Self::OrderSaga => &["order-orchestrator"],
            Self::StockCommands => &["stock-worker"],
            Self::PaymentCommands => &["payment-worker"],
            Self::OrderEvents | Self::StockEvents => &["api"],
            Self::StockLevels => &["api", "stock-worker"],
            Self::DeadLetters => &["api", "order-orchestrator", "payment-worker", "stock-worker"],
        }
    }

    /// The topic of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}
