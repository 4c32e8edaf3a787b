// RUN: canonicalize
// A pad in front of a convolution becomes its own; neighbouring clips, reshapes and transposes become one.
// CHECK:      "hbir.conv2d"(%arg0, %{{.*}}) <{{.*}}pad = array<i64: 1, 1, 1, 1>
// CHECK-SAME: loc(fused["pad", "conv"])
// CHECK-NEXT: "hbir.clip"(%{{.*}}) <{max = 6.000000e+00 : f64, min = 0.000000e+00 : f64}>
// CHECK-SAME: loc(fused["low", "high"])
// CHECK-NOT:  hbir.transpose
// CHECK:      "hbir.reshape"(%{{.*}}) <{shape = array<i64: 32>}>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x4x4x1xf32>) -> tensor<32xf32>}> ({
  ^bb0(%x: tensor<1x4x4x1xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 0 0 0 0 0 0 0 1 0 2 0 0 0 0 0 0 0)}> : () -> tensor<2x3x3x1xf32>
    %p = "hbir.pad"(%x) <{before = array<i64: 0, 1, 1, 0>, after = array<i64: 0, 1, 1, 0>, mode = "constant", value = 0.0 : f64}>
      : (tensor<1x4x4x1xf32>) -> tensor<1x6x6x1xf32> loc("pad")
    %c = "hbir.conv2d"(%p, %w) <{stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>,
      groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
      : (tensor<1x6x6x1xf32>, tensor<2x3x3x1xf32>) -> tensor<1x4x4x2xf32> loc("conv")
    %a = "hbir.clip"(%c) <{min = 0.0 : f64}> : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xf32> loc("low")
    %b = "hbir.clip"(%a) <{max = 6.0 : f64}> : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xf32> loc("high")
    %t = "hbir.transpose"(%b) <{permutation = array<i64: 0, 3, 1, 2>}> : (tensor<1x4x4x2xf32>) -> tensor<1x2x4x4xf32>
    %u = "hbir.transpose"(%t) <{permutation = array<i64: 0, 2, 3, 1>}> : (tensor<1x2x4x4xf32>) -> tensor<1x4x4x2xf32>
    %r = "hbir.reshape"(%u) <{shape = array<i64: 4, 8>}> : (tensor<1x4x4x2xf32>) -> tensor<4x8xf32>
    %s = "hbir.reshape"(%r) <{shape = array<i64: 32>}> : (tensor<4x8xf32>) -> tensor<32xf32>
    "func.return"(%s) : (tensor<32xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// A division by a power of two is a product, by the smallest float it stays: its reciprocal is infinite.
// CHECK:      "hbir.mul"(%arg0
// CHECK-NEXT: "hbir.constant"
// CHECK-NEXT: "hbir.div"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xf32>) -> tensor<2xf32>}> ({
  ^bb0(%x: tensor<2xf32>):
    %c = "hbir.constant"() <{value = BLOB(f32: 4 0.5)}> : () -> tensor<2xf32>
    %0 = "hbir.div"(%x, %c) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %d = "hbir.constant"() <{value = BLOB(f32: 1e-45)}> : () -> tensor<1xf32>
    %1 = "hbir.div"(%0, %d) : (tensor<2xf32>, tensor<1xf32>) -> tensor<2xf32>
    "func.return"(%1) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// A slice of a concat is a slice of the operand that it lies in; across two operands it stays.
// CHECK:      "hbir.concat"
// CHECK-NEXT: "hbir.slice"(%arg1) <{begin = array<i64: 0, 1>, end = array<i64: 2, 3>
// CHECK-NEXT: "hbir.slice"
// CHECK-SAME: begin = array<i64: 0, 2>, end = array<i64: 2, 5>
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x2xf32>, tensor<2x3xf32>)}> ({
  ^bb0(%x: tensor<2x4xf32>, %y: tensor<2x4xf32>):
    %c = "hbir.concat"(%x, %y) <{axis = 1 : i64}> : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x8xf32>
    %0 = "hbir.slice"(%c) <{begin = array<i64: 0, 5>, end = array<i64: 2, 7>, step = array<i64: 1, 1>}>
      : (tensor<2x8xf32>) -> tensor<2x2xf32>
    %1 = "hbir.slice"(%c) <{begin = array<i64: 0, 2>, end = array<i64: 2, 5>, step = array<i64: 1, 1>}>
      : (tensor<2x8xf32>) -> tensor<2x3xf32>
    "func.return"(%0, %1) : (tensor<2x2xf32>, tensor<2x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// An operand is not expanded where the operation broadcasts it, unless the other one would not bring the shape.
// CHECK:      "hbir.mul"(%arg0, %arg1)
// CHECK-NEXT: "hbir.expand"
// CHECK-NEXT: "hbir.mul"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x4xf32>, tensor<2x1xf32>) -> (tensor<2x4xf32>, tensor<2x3xf32>)}> ({
  ^bb0(%x: tensor<2x4xf32>, %y: tensor<2x1xf32>):
    %e = "hbir.expand"(%y) <{shape = array<i64: 2, 4>}> : (tensor<2x1xf32>) -> tensor<2x4xf32>
    %0 = "hbir.mul"(%x, %e) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
    %f = "hbir.expand"(%y) <{shape = array<i64: 2, 3>}> : (tensor<2x1xf32>) -> tensor<2x3xf32>
    %1 = "hbir.mul"(%f, %y) : (tensor<2x3xf32>, tensor<2x1xf32>) -> tensor<2x3xf32>
    "func.return"(%0, %1) : (tensor<2x4xf32>, tensor<2x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
