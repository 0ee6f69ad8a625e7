"""Other people's Kafka clients, driven by broker_foreign_clients.rs. One record is one line of JSON:
[key or null, value, [[header, value], ...]].

produce CLIENT BOOTSTRAP TOPIC CODEC          records from standard input, in order
consume CLIENT BOOTSTRAP TOPIC COUNT          so many records from the beginning, in order
member  CLIENT BOOTSTRAP TOPIC GROUP STRATEGY until killed: "PARTITION VALUE" a record, then commits
CLIENT is kafka-python or confluent-kafka.
"""

import json
import sys


def encoded(text):
    return None if text is None else text.encode()


def decoded(data):
    return None if data is None else data.decode()


def line(key, value, headers):
    headers = [[name, decoded(content)] for name, content in headers or []]
    print(json.dumps([decoded(key), decoded(value), headers]))


def records():
    for text in sys.stdin:
        key, value, headers = json.loads(text)
        yield encoded(key), encoded(value), [(name, encoded(content)) for name, content in headers]


class KafkaPython:
    def produce(self, bootstrap, topic, codec):
        from kafka import KafkaProducer

        codec = None if codec == "none" else codec
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=50)
        sent = [
            producer.send(topic, key=key, value=value, headers=headers, partition=0)
            for key, value, headers in records()
        ]
        for one in sent:
            one.get(timeout=60)
        producer.close()

    def consume(self, bootstrap, topic, count):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=60000, check_crcs=True)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        for _, record in zip(range(count), consumer):
            line(record.key, record.value, record.headers)

    def member(self, bootstrap, topic, group, strategy):
        from kafka import KafkaConsumer
        from kafka.coordinator.assignors.range import RangePartitionAssignor

        assert strategy == "range"
        consumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            partition_assignment_strategy=[RangePartitionAssignor],
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
        )
        while True:
            for partition, found in consumer.poll(timeout_ms=200).items():
                for record in found:
                    print(partition.partition, record.value.decode(), flush=True)
            try:
                consumer.commit()
            except Exception as error:  # a rebalance took the partitions: their records come again
                print("commit:", error, file=sys.stderr, flush=True)


class ConfluentKafka:
    def produce(self, bootstrap, topic, codec):
        from confluent_kafka import Producer

        failures = []
        settings = {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 50}
        producer = Producer({**settings, "enable.idempotence": True})
        for key, value, headers in records():
            producer.produce(
                topic,
                key=key,
                value=value,
                headers=headers,
                partition=0,
                on_delivery=lambda error, _: failures.append(error) if error else None,
            )
        left = producer.flush(60)
        assert not failures and left == 0, (failures, left)

    def consume(self, bootstrap, topic, count):
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "check.crcs": True})
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        for _ in range(count):
            record = consumer.poll(60)
            assert record is not None and not record.error(), record and record.error()
            line(record.key(), record.value(), record.headers())
        consumer.close()

    def member(self, bootstrap, topic, group, strategy):
        from confluent_kafka import Consumer, KafkaException

        consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "partition.assignment.strategy": strategy,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
            }
        )
        consumer.subscribe([topic])
        while True:
            record = consumer.poll(0.2)
            if record is None or record.error():
                continue
            print(record.partition(), record.value().decode(), flush=True)
            try:
                consumer.commit(record, asynchronous=False)
            except KafkaException as error:  # a rebalance took the partition: its records come again
                print("commit:", error, file=sys.stderr, flush=True)


def main():
    action, client, *rest = sys.argv[1:]
    client = {"kafka-python": KafkaPython, "confluent-kafka": ConfluentKafka}[client]()
    if action == "produce":
        client.produce(*rest)
    elif action == "consume":
        bootstrap, topic, count = rest
        client.consume(bootstrap, topic, int(count))
    else:
        client.member(*rest)


main()
