"""A shop built on the generated client: shop.py API TOKEN SKU. Every answer comes back as one of the client's own types."""

import json
import sys
import time

from firstcome_client import AuthenticatedClient
from firstcome_client.api.catalogue import get_product
from firstcome_client.api.orders import cancel_order, get_order, list_orders, pay_order, place_order
from firstcome_client.models import NewLine, NewOrder, NewPayment, Nothing, Order, OrderState, Problem

api, token, sku = sys.argv[1:4]
client = AuthenticatedClient(base_url=api, token=token)


def until(order_id, states):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        order = get_order.sync(order_id, client=client)
        assert isinstance(order, Order), order
        if order.state in states:
            return order
        time.sleep(0.05)
    raise AssertionError(f"{order.state} instead of {states}")


product = get_product.sync(sku, client=client)
assert product.available == 5 and not product.sold_out, product

order = place_order.sync(
    client=client,
    body=NewOrder(lines=[NewLine(sku=sku, quantity=1)], payment=NewPayment(method="tok_approve")),
    idempotency_key="generated-1",
)
assert isinstance(order, Order), order
again = place_order.sync(
    client=client,
    body=NewOrder(lines=[NewLine(sku=sku, quantity=1)], payment=NewPayment(method="tok_approve")),
    idempotency_key="generated-1",
)
assert again.id == order.id, (again.id, order.id)
until(order.id, [OrderState.PAID, OrderState.SHIPPED, OrderState.DELIVERED])

waiting = place_order.sync(client=client, body=NewOrder(lines=[NewLine(sku=sku, quantity=1)]), prefer="wait=10")
assert isinstance(waiting, Order) and waiting.state == OrderState.AWAITING_PAYMENT, waiting
assert isinstance(pay_order.sync(waiting.id, client=client, body=NewPayment(method="tok_approve")), Order)
until(waiting.id, [OrderState.PAID, OrderState.SHIPPED, OrderState.DELIVERED])

other = place_order.sync(client=client, body=NewOrder(lines=[NewLine(sku=sku, quantity=1)]), prefer="wait=10")
assert isinstance(cancel_order.sync(other.id, client=client, body=Nothing()), Order)

refused = place_order.sync(client=client, body=NewOrder(lines=[NewLine(sku="NO-SUCH-SKU", quantity=1)]))
assert isinstance(refused, Problem) and refused.code == "unknown_sku", refused
assert len(list_orders.sync(client=client).items) >= 1

print(json.dumps({"paid": str(order.id), "cancelled": str(other.id)}))
