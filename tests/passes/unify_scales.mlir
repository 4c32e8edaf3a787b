// RUN: unify-scales
// The wider operand sets the grid of the joint tensor, of eight bits here and there.
// CHECK:      "qat.fake_quant"(%arg0) <{grid = !quant.uniform<i8:f32, 5.000000e-01>}>
// CHECK-NEXT: "qat.fake_quant"(%arg1) <{grid = !quant.uniform<i8:f32, 5.000000e-01>}>
// CHECK-NEXT: "hbir.concat"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>, %y: tensor<1x2xf32>):
    %a = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %b = "qat.fake_quant"(%y) <{grid = !quant.uniform<i8:f32, 0.0625>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %c = "hbir.concat"(%a, %b) <{axis = 1 : i64}> : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>
    %d = "hbir.clip"(%c) <{min = 0.0 : f64}> : (tensor<1x4xf32>) -> tensor<1x4xf32>
    "func.return"(%d) : (tensor<1x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Boxes and scores that go to an output stay apart.
// CHECK: 5.000000e-01
// CHECK: 6.250000e-02
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>, %y: tensor<1x2xf32>):
    %a = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %b = "qat.fake_quant"(%y) <{grid = !quant.uniform<i8:f32, 0.0625>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %c = "hbir.concat"(%a, %b) <{axis = 1 : i64}> : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>
    "func.return"(%c) : (tensor<1x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Scales along an axis are those of weights: the joint tensor is one of floats, and each operand keeps its grid.
// CHECK: !quant.uniform<i8<-127:127>:f32:0, {1.250000e-01,2.500000e-01}>
// CHECK: !quant.uniform<i8:f32, 6.250000e-02>
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x2xf32>, tensor<2x2xf32>) -> (tensor<2x4xf32>, tensor<2x2xf32>)}> ({
  ^bb0(%w: tensor<2x2xf32>, %x: tensor<2x2xf32>):
    %a = "qat.fake_quant"(%w) <{grid = !quant.uniform<i8<-127:127>:f32:0, {0.125, 0.25}>}> : (tensor<2x2xf32>) -> tensor<2x2xf32>
    %b = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.0625>}> : (tensor<2x2xf32>) -> tensor<2x2xf32>
    %c = "hbir.concat"(%a, %b) <{axis = 1 : i64}> : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x4xf32>
    %d = "hbir.clip"(%c) <{min = 0.0 : f64}> : (tensor<2x4xf32>) -> tensor<2x4xf32>
    %e = "hbir.linear"(%b, %a) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
    "func.return"(%d, %e) : (tensor<2x4xf32>, tensor<2x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
