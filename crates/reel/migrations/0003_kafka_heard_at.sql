-- When Kafka last answered the instance; null if it does not say. One that hears nothing while others do gives them its lanes.
alter table reel.replicas add column kafka_heard_at timestamptz;
