// The saga as Temporal's documentation has it: a workflow whose steps are activities, with a compensation where the payment is declined.
// Stock and charges are rows in the same PostgreSQL that Firstcome uses; an activity may run twice, so each is keyed by its order.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const (
	queue = "rival"
	// Of each product: more than can be sold.
	units = 1_000_000_000
)

const schema = `
CREATE TABLE stock (
  sku text PRIMARY KEY, available bigint NOT NULL CHECK (available >= 0), held bigint NOT NULL, sold bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE holds (order_id text PRIMARY KEY, sku text NOT NULL, status text NOT NULL);
CREATE TABLE charges (order_id text PRIMARY KEY, amount bigint NOT NULL, approved boolean NOT NULL);`

// Order is of one unit.
type Order struct {
	ID         string
	SKU        string
	IsDeclined bool
}

// Shop has the steps.
type Shop struct{ db *pgxpool.Pool }

// Reserve holds the unit. Run again for the same order it changes nothing.
func (s *Shop) Reserve(ctx context.Context, order Order) (bool, error) {
	const statement = `
WITH hold AS (INSERT INTO holds VALUES ($1, $2, 'held') ON CONFLICT DO NOTHING RETURNING 1)
UPDATE stock SET available = available - 1, held = held + 1 WHERE sku = $2 AND available > 0 AND EXISTS (SELECT FROM hold)`
	_, err := s.db.Exec(ctx, statement, order.ID, order.SKU)
	return err == nil, err
}

// Charge asks the provider, which is simulated, and keeps what it said.
func (s *Shop) Charge(ctx context.Context, order Order) (bool, error) {
	_, err := s.db.Exec(ctx, `INSERT INTO charges VALUES ($1, 1000, $2) ON CONFLICT DO NOTHING`, order.ID, !order.IsDeclined)
	return !order.IsDeclined, err
}

// Confirm sells the unit.
func (s *Shop) Confirm(ctx context.Context, order Order) error {
	const statement = `
WITH hold AS (UPDATE holds SET status = 'sold' WHERE order_id = $1 AND status = 'held' RETURNING 1)
UPDATE stock SET held = held - 1, sold = sold + 1 WHERE sku = $2 AND EXISTS (SELECT FROM hold)`
	_, err := s.db.Exec(ctx, statement, order.ID, order.SKU)
	return err
}

// Release gives it back.
func (s *Shop) Release(ctx context.Context, order Order) error {
	const statement = `
WITH hold AS (UPDATE holds SET status = 'released' WHERE order_id = $1 AND status = 'held' RETURNING 1)
UPDATE stock SET held = held - 1, available = available + 1 WHERE sku = $2 AND EXISTS (SELECT FROM hold)`
	_, err := s.db.Exec(ctx, statement, order.ID, order.SKU)
	return err
}

// Saga is the workflow.
func Saga(ctx workflow.Context, order Order) (string, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	var shop *Shop
	var reserved, approved bool
	if err := workflow.ExecuteActivity(ctx, shop.Reserve, order).Get(ctx, &reserved); err != nil {
		return "", err
	}
	if !reserved {
		return "REJECTED", nil
	}
	if err := workflow.ExecuteActivity(ctx, shop.Charge, order).Get(ctx, &approved); err != nil {
		return "", err
	}
	if !approved {
		return "PAYMENT_FAILED", workflow.ExecuteActivity(ctx, shop.Release, order).Get(ctx, nil)
	}
	return "PAID", workflow.ExecuteActivity(ctx, shop.Confirm, order).Get(ctx, nil)
}

// load is the same as ../driver.mjs puts on the others.
type load struct {
	client client.Client
	skus   int
	each   time.Duration
	placed atomic.Int64
}

// complete places the next order and waits for its end.
func (l *load) complete(isHot bool, declinedOfTen int64) (time.Duration, error) {
	number := l.placed.Add(1) - 1
	sku := int64(0)
	if !isHot {
		sku = number * 7919 % int64(l.skus)
	}
	order := Order{
		ID:         fmt.Sprintf("order-%d-%d", os.Getpid(), number),
		SKU:        fmt.Sprintf("RIVAL-%d", sku),
		IsDeclined: number%10 < declinedOfTen,
	}
	begun := time.Now()
	options := client.StartWorkflowOptions{ID: order.ID, TaskQueue: queue, EnableEagerStart: true}
	run, err := l.client.ExecuteWorkflow(context.Background(), options, Saga, order)
	if err != nil {
		return 0, err
	}
	var state string
	if err := run.Get(context.Background(), &state); err != nil {
		return 0, err
	}
	wanted := "PAID"
	if order.IsDeclined {
		wanted = "PAYMENT_FAILED"
	}
	if state != wanted {
		return 0, fmt.Errorf("%s ended %s instead of %s", order.ID, state, wanted)
	}
	return time.Since(begun), nil
}

type closed struct {
	InFlight  int     `json:"in_flight"`
	Orders    int     `json:"orders"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

func percentile(sorted []time.Duration, share float64) float64 {
	at := min(len(sorted)-1, int(math.Floor(float64(len(sorted))*share)))
	return sorted[at].Seconds() * 1000
}

// closed has as many buyers as are to be in flight, each with one order after the other until the time is over.
func (l *load) closed(inFlight int, isHot bool) closed {
	var mutex sync.Mutex
	var took []time.Duration
	var buyers sync.WaitGroup
	begun := time.Now()
	end := begun.Add(l.each)
	for range inFlight {
		buyers.Go(func() {
			for time.Now().Before(end) {
				one, err := l.complete(isHot, 1)
				if err != nil {
					log.Fatal(err)
				}
				mutex.Lock()
				took = append(took, one)
				mutex.Unlock()
			}
		})
	}
	buyers.Wait()
	perSecond := float64(len(took)) / time.Since(begun).Seconds()
	slices.Sort(took)
	return closed{inFlight, len(took), perSecond, percentile(took, 0.5), percentile(took, 0.99)}
}

// best tries each number in flight in turn; the fastest counts.
func (l *load) best(inFlight []string, isHot bool) closed {
	var best closed
	for _, text := range inFlight {
		number, err := strconv.Atoi(text)
		if err != nil {
			log.Fatal(err)
		}
		seen := l.closed(number, isHot)
		log.Printf("hot %t, %d in flight: %.0f/s", isHot, number, seen.PerSecond)
		if seen.PerSecond > best.PerSecond {
			best = seen
		}
	}
	return best
}

func main() {
	address := flag.String("address", "", "HOST:PORT of Temporal")
	name := flag.String("name", "Temporal", "what runs there, for the report")
	seconds := flag.Int("seconds", 10, "of each run")
	idleOrders := flag.Int("idle-orders", 100, "orders one at a time")
	skus := flag.Int("skus", 1000, "products")
	inFlight := flag.String("in-flight", "16,64,256", "numbers in flight to try")
	flag.Parse()
	ctx := context.Background()

	config, err := pgxpool.ParseConfig(os.Getenv("RIVAL_DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = 20
	db, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.Exec(ctx, schema); err != nil {
		log.Fatal(err)
	}
	const stock = `INSERT INTO stock SELECT 'RIVAL-' || n, $1, 0, 0 FROM generate_series(0, $2::int - 1) AS n`
	if _, err := db.Exec(ctx, stock, units, *skus); err != nil {
		log.Fatal(err)
	}

	quiet := sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	temporal, err := client.Dial(client.Options{HostPort: *address, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	shop := worker.New(temporal, queue, worker.Options{
		MaxConcurrentActivityTaskPollers: 8,
		MaxConcurrentWorkflowTaskPollers: 8,
	})
	shop.RegisterWorkflow(Saga)
	shop.RegisterActivity(&Shop{db})
	if err := shop.Start(); err != nil {
		log.Fatal(err)
	}

	load := &load{client: temporal, skus: *skus, each: time.Duration(*seconds) * time.Second}
	load.closed(64, false)
	var idle []time.Duration
	for range *idleOrders {
		took, err := load.complete(true, 0)
		if err != nil {
			log.Fatal(err)
		}
		idle = append(idle, took)
		time.Sleep(50 * time.Millisecond)
	}
	slices.Sort(idle)
	tries := strings.Split(*inFlight, ",")
	uniform := load.best(tries, false)
	hot := load.best(tries, true)

	const books = `SELECT sum(held) = 0 AND sum(available + held + sold) = $1::bigint * count(*)
		AND sum(sold) = (SELECT count(*) FROM charges WHERE approved) FROM stock`
	var agree bool
	if err := db.QueryRow(ctx, books, units).Scan(&agree); err != nil || !agree {
		log.Fatal("the books do not agree: ", err)
	}
	shop.Stop()
	result := map[string]any{
		"name":    *name,
		"idle":    map[string]any{"orders": len(idle), "p50_ms": percentile(idle, 0.5), "p99_ms": percentile(idle, 0.99)},
		"uniform": uniform,
		"hot":     hot,
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
