-- Runs once, when the volume is new.
create database "order";
create database payment;
create database inventory;
