// Package models says, for porcupine, what a right answer of etcd's KV service is.
package models
