// Package jepsen runs the real binary, one network namespace a node, stores on disk, clients outside, while nemeses kill,
// pause, cut off and slow down what there is; the clients' history is checked by the same checkers as the simulator's. A
// run leaves a folder that a person can read.
package jepsen
